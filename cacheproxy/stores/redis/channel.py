"""The subscription to notices of other processes on one Redis, which detects a dead connection.

Notices that are published while it is down are lost. So after each reconnection, before the first
message, the owner reads the current state and drops whatever it may have missed a notice about.
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
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.link import Backoff, RedisLink, as_store_error, connect

_log = logging.getLogger(__name__)

_QUIET_S = 1.5
"""Silence after which Redis is pinged; after as much again the connection is given up."""


class Channel:
    """A subscription to one channel, renewed until it is stopped."""

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
            purges: its `is_listening` is kept up to date.
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
        """Subscribe and catch up; if that fails, keep trying in the background."""
        self._task = asyncio.create_task(self._run())
        await self._tried.wait()

    async def stop(self) -> None:
        """End the subscription."""
        await stop_tasks(self._task)

    async def _run(self) -> None:
        while True:
            connection = self._link.make_connection()
            try:
                await self._listen(connection)
            except StoreError as error:
                self._lost(error)
            except Exception as error:
                # Replies that are not Redis' protocol may raise anything.
                self._lost(as_store_error(error))
            finally:
                await connection.disconnect(nowait=True)
            self._tried.set()
            await asyncio.sleep(self._backoff.next_pause_s())

    async def _listen(self, connection: AbstractConnection) -> None:
        """Hand on messages until the connection fails, which raises."""
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
            _log.info("receiving notices of other processes again")
        self._is_said = False
        self._purges.is_listening = True
        self._backoff.reset()
        self._tried.set()

    def _lost(self, error: StoreError) -> None:
        if not self._is_said:
            # Store calls already log that Redis cannot be reached.
            level = logging.INFO if error.kind in ("connection", "timeout") else logging.WARNING
            _log.log(level, "cannot receive notices of other processes, reconnecting: %s", error)
        self._is_said = True
        self._purges.is_listening = False
