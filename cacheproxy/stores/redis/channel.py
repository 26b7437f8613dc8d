"""Receives announcements of processes on one Redis: a subscription that detects a dead connection.

Announcements made while it is disconnected are lost. On each new connection, before the first
message, the owner therefore reads the current state and drops what may be outdated.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from cacheproxy.errors import StoreError
from cacheproxy.stores.purges import Purges
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.link import RedisLink, as_store_error, connect

_log = logging.getLogger(__name__)

_QUIET_S = 1.5
"""Silence after which Redis is pinged; after as long again the connection is given up."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
"""Pauses between attempts to connect double from the first to the longest."""


class Channel:
    """A subscription to one channel, which reconnects until it is stopped."""

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
            name: the channel's name.
            purges: is told whether announcements are being received.
            catch_up: called once subscribed, before any message is delivered; may raise
                `StoreError`.
            hear: is called with each message.
        """
        self._link = link
        self._name = name
        self._purges = purges
        self._catch_up = catch_up
        self._hear = hear
        self._tried = asyncio.Event()
        self._is_said = False
        self._pause_s = _FIRST_PAUSE_S
        self._task: asyncio.Task[None] | None = None
        purges.is_listening = False

    async def start(self) -> None:
        """Subscribe and catch up; if that fails, retry in the background."""
        self._task = asyncio.create_task(self._run())
        await self._tried.wait()

    async def stop(self) -> None:
        """Unsubscribe."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            connection = self._link.make_connection()
            try:
                await self._listen(connection)
            except StoreError as error:
                self._lost(error)
            except Exception as error:
                # Replies that are not valid RESP may raise any exception.
                self._lost(as_store_error(error))
            finally:
                await connection.disconnect(nowait=True)
            self._tried.set()
            # Not all processes at the same moment.
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1))  # noqa: S311
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    async def _listen(self, connection: AbstractConnection) -> None:
        """Deliver messages until the connection fails; always ends with an error."""
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
            _log.info("announcements of purges by other processes are received again")
        self._is_said = False
        self._purges.is_listening = True
        self._pause_s = _FIRST_PAUSE_S
        self._tried.set()

    def _lost(self, error: StoreError) -> None:
        if not self._is_said:
            # An unreachable Redis is logged by the link.
            level = logging.INFO if error.kind in ("connection", "timeout") else logging.WARNING
            _log.log(
                level,
                "announcements of purges by other processes are not received; retrying: %s",
                error,
            )
        self._is_said = True
        self._purges.is_listening = False
