"""The purges that a process knows of, against which it checks what it reads and writes.

Redis has the notes of purges, and usually the entries that a purge removed are gone. After a
failover neither may be so: a replica that lagged behind has the entries again, and not the notes.
So a process checks by what it heard itself for as long as Redis would keep the note of it, and
tells a new master what that does not know (`purges`).
"""

import time
from collections.abc import Callable, Mapping

from cacheproxy.stores.redis.purging.floors import FLOORS_KEPT_S, SINCE

_MOST_PAST = 4_096
"""Beyond so many finished purges, those older than an hour are forgotten."""


class KnownPurges:
    """Numbers of purges by the names of their scopes; used from one event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Know of none; `now` gives seconds of a clock that never goes back."""
        self._now = now
        self._running: dict[str, int] = {}
        self._past: dict[str, int] = {}
        self._most_past = _MOST_PAST
        self._past_until = now()

    @property
    def is_any(self) -> bool:
        """Whether lookups have to read namespace and tags, to check entries against purges."""
        if self._past and self._now() >= self._past_until:
            self._past.clear()
        return bool(self._running or self._past)

    def purged_at(self, name: str) -> int:
        """Return the number of the newest purge of a scope; 0 if none is known."""
        return max(self._running.get(name, 0), self._past.get(name, 0))

    def running_at(self, name: str) -> int:
        """Return the number of the purge of a scope that still removes entries; 0 if none does."""
        return self._running.get(name, 0)

    def begun(self, name: str, generation: int) -> None:
        """Take note of a purge that removes entries."""
        if name == SINCE:
            return  # it is of nothing
        self._running[name] = max(generation, self._running.get(name, 0))
        self.remember(name, generation)

    def ended(self, name: str) -> None:
        """Take note that a scope's entries are removed."""
        self._running.pop(name, None)

    def none_runs(self) -> None:
        """Forget which purges run, since their ends may have been missed."""
        self._running.clear()

    def remember(self, name: str, generation: int) -> None:
        """Take note of a purge that is over or has no entries to look for."""
        if name == SINCE:
            return  # it is of nothing
        self._past[name] = max(generation, self._past.get(name, 0))
        self._past_until = self._now() + FLOORS_KEPT_S
        if len(self._past) > self._most_past:
            oldest = max(self._past.values()) - FLOORS_KEPT_S * 1_000_000
            self._past = {name: at for name, at in self._past.items() if at >= oldest}
            self._most_past = 2 * len(self._past) + _MOST_PAST

    def missing_in(self, floors: Mapping[str, int], now_us: int) -> dict[str, int]:
        """Return the known purges of the last hour that Redis has no note of.

        Args:
            floors: the notes that Redis has: numbers by the names of scopes.
            now_us: Redis' time.
        """
        oldest = now_us - FLOORS_KEPT_S * 1_000_000
        return {
            name: at for name, at in self._past.items() if at > oldest and floors.get(name, 0) < at
        }
