"""How often entries were found lately, so that eviction can spare those that are used.

The store evicts its oldest entries first. One that was found since it was written, or since it was
last spared, is spared instead: it becomes as young as a new one and has one use less (a FIFO with
reinsertion, or CLOCK, with counts of up to 3). Reads write nothing: counts are in memory, of this
process, and begin at 0. `loadtest bench eviction` compares the hit rate with other policies'.
"""

from collections.abc import Iterable

_PLACES = 2**22
_BYTES_OF_PLACE = 256
"""One byte each, and no more than the store has room for ten times over: uses touch them at random,
so that all of them become resident with time. Entries share a place by chance: with a million
entries in use, one in five that is not used is spared once."""

_MOST = 3


class Uses:
    """Counts by key; written and read on several threads, where a lost count does not matter."""

    def __init__(self, max_bytes: int) -> None:
        """Count for a store of at most so many bytes."""
        self._places = min(_PLACES, max(1, max_bytes // _BYTES_OF_PLACE))
        self._counts = bytearray(self._places)

    def found(self, keys: Iterable[bytes]) -> None:
        """Count a use of each entry."""
        for key in keys:
            place = self._place(key)
            if self._counts[place] < _MOST:
                self._counts[place] += 1

    def take(self, key: bytes) -> bool:
        """Take one use from an entry; return whether it had one."""
        place = self._place(key)
        if not self._counts[place]:
            return False
        self._counts[place] -= 1
        return True

    def _place(self, key: bytes) -> int:
        return int.from_bytes(key[:4], "little") % self._places  # keys are hashes
