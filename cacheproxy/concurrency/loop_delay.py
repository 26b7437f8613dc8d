"""Whether the event loop gets round to what is due: it may be busy, or get no core.

A request that waits in its socket meanwhile has not begun for any other metric.
"""

import asyncio
import time
from typing import Protocol

_EVERY_S = 0.1


class Observations(Protocol):
    """Where delays go."""

    def observe(self, value: float) -> None:
        """Count a delay, seconds."""


async def watch_loop(observations: Observations) -> None:
    """Observe without end by how much the running event loop is late for a timer, seconds."""
    while True:
        due_at = time.monotonic() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        observations.observe(max(0.0, time.monotonic() - due_at))
