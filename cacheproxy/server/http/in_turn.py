"""What arrives on a connection is worked on in its turn among all that the event loop has to do.

While it waits the connection reads no more, so that a client cannot make it hold much.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.fairness.owner import NOBODY
from cacheproxy.server.http.ending import EndingProtocol

OwnerOf = Callable[[Mapping[bytes, bytes]], str]
"""Returns for whom a request with these headers works."""


class InTurnProtocol(EndingProtocol):
    """A protocol that receives in turn; who has to wait is told by its latest request."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        turns: LoopTurns,
        owner_of: OwnerOf,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._turns = turns
        self._owner_of = owner_of
        self._held = b""
        """What has arrived and waits for its turn."""

    def data_received(self, data: bytes) -> None:
        """Work on what has arrived, now or in its turn."""
        if self._held:
            self._held += data
        elif not self._turns.do(self._receive, data):
            self._held = data
            self.transport.pause_reading()
            self._turns.wait(self._owner(), self._receive_held)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._held = b""
        super().connection_lost(exc)

    def _receive(self, data: bytes) -> None:
        """Work on what has arrived."""
        raise NotImplementedError

    def _receive_held(self) -> None:
        held, self._held = self._held, b""
        if held:
            if not self.flow.read_paused:
                self.transport.resume_reading()
            self._receive(held)

    def _start_in_turn(self, start: Callable[[], None]) -> None:
        """Start the task of a request, now or in its turn."""
        if not self._turns.start(start):
            self._turns.wait_for_task(self._owner(), start)

    def _owner(self) -> str:
        if self.scope is None:
            return NOBODY
        return self._owner_of(dict(cast(list[tuple[bytes, bytes]], self.scope["headers"])))
