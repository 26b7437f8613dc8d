"""What arrives on a connection is worked on in its turn among all that the event loop has to do.

A connection that holds much of it meanwhile reads no more.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.fairness.owner import NOBODY
from cacheproxy.server.http.ending import EndingProtocol

Headers = Sequence[tuple[bytes, bytes]]
OwnerOf = Callable[[Headers], str]
"""Returns for whom a request with these headers works."""

_MOST_HELD = 64 * 1024
"""Bytes from which on no more is read. To stop and to begin again are two system calls."""


class InTurnProtocol(EndingProtocol):
    """A protocol that receives in turn; who has to wait is told by its latest request."""

    def __init__(self, *args: Any, turns: LoopTurns, owner_of: OwnerOf, **of_uvicorn: Any) -> None:
        super().__init__(*args, **of_uvicorn)
        self._turns = turns
        self._owner_of = owner_of
        self._held = b""
        """What has arrived and waits for its turn."""
        self._has_paused = False

    def data_received(self, data: bytes) -> None:
        """Work on what has arrived, now or in its turn."""
        if self._held:
            self._held += data
        elif self._turns.do(self._receive, data):
            return
        else:
            self._held = data
            self._turns.wait(self._owner(), self._receive_held)
        if len(self._held) > _MOST_HELD:
            self._has_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """Work on what came before the end."""
        self._receive_held()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._held = b""
        super().connection_lost(exc)

    def _receive(self, data: bytes) -> None:
        """Work on what has arrived."""
        raise NotImplementedError

    def _receive_held(self) -> None:
        held, self._held = self._held, b""
        if self._has_paused:
            self._has_paused = False
            if not self.flow.read_paused:
                self.transport.resume_reading()
        if held:
            self._receive(held)

    def _start_in_turn(self, start: Callable[[], None]) -> None:
        """Start the task of a request, now or in its turn."""
        if not self._turns.start(start):
            self._turns.wait_for_task(self._owner(), start)

    def _owner(self) -> str:
        if self.scope is None:
            return NOBODY
        return self._owner_of(cast(Headers, self.scope["headers"]))
