"""Hears what processes on one Redis announce: a subscription that notices when it is not alive.

What was announced while it was away is lost; so on each new connection, before the first message,
the owner catches up on the state, and forgets what it may have missed news of.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.stores.purges import Purges
from cacheproxy.stores.redis.backoff import Backoff
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.link import RedisLink, as_store_error, connect

_log = logging.getLogger(__name__)

_QUIET_S = 1.5
"""Silence after which Redis is asked whether it is there, and after as much again given up."""


class Channel:
    """A subscription to one channel, kept up for as long as it is wanted."""

    def __init__(
        self,
        link: RedisLink | ClusterLink,
        name: str,
        purges: Purges,
        *,
        catch_up: Callable[[], Awaitable[None]],
        hear: Callable[[bytes], None],
    ) -> None:
        """Prepare the subscription.

        Args:
            link: makes the connection.
            name: of the channel.
            purges: is told whether anything is heard.
            catch_up: called once subscribed, before any message is handed on; may raise
                `StoreError`.
            hear: is handed each message.
        """
        self._link = link
        self._name = name
        self._purges = purges
        self._catch_up = catch_up
        self._hear = hear
        self._tried = asyncio.Event()
        self._is_said = False
        self._backoff = Backoff()
        self._task: asyncio.Task[None] | None = None
        purges.is_listening = False

    async def start(self) -> None:
        """Subscribe and catch up; if that fails, go on trying in the background."""
        self._task = asyncio.create_task(self._run())
        await self._tried.wait()

    async def stop(self) -> None:
        """Subscribe no more."""
        await stop_tasks(self._task)

    async def _run(self) -> None:
        while True:
            connection = self._link.make_connection()
            try:
                await self._listen(connection)
            except StoreError as error:
                self._lost(error)
            except Exception as error:
                # Bytes that are no Redis's may break anything on their way.
                self._lost(as_store_error(error))
            finally:
                await connection.disconnect(nowait=True)
            self._tried.set()
            await asyncio.sleep(self._backoff.next_pause_s())

    async def _listen(self, connection: AbstractConnection) -> None:
        """Hand on messages until there can be no more, which is an error."""
        if error := await connect(connection):
            raise error
        await connection.send_command("SUBSCRIBE", self._name)
        await self._read(connection)
        await self._catch_up()
        self._found()
        while True:
            message = await self._read(connection)
            if message[0] == b"message":
                self._hear(message[2])

    async def _read(self, connection: AbstractConnection) -> Any:
        reply = await connection.read_response(timeout=_QUIET_S)
        if reply is None:
            await connection.send_command("PING")
            reply = await connection.read_response(timeout=_QUIET_S)
        if reply is None:
            raise as_store_error(exceptions.TimeoutError())
        return reply

    def _found(self) -> None:
        if self._is_said:
            _log.info("purges by other processes are heard again")
        self._is_said = False
        self._purges.is_listening = True
        self._backoff.reset()
        self._tried.set()

    def _lost(self, error: StoreError) -> None:
        if not self._is_said:
            # That Redis is away, those who ask it say.
            level = logging.INFO if error.kind in ("connection", "timeout") else logging.WARNING
            _log.log(level, "purges by other processes are not heard, trying on: %s", error)
        self._is_said = True
        self._purges.is_listening = False
