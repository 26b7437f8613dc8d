"""How often entries were found lately, so that eviction can spare those that are used.

The store evicts its oldest entries first. One that was found since it was written, or since it was
last spared, is spared instead: it becomes as young as a new one and has one use less (a FIFO with
reinsertion, or CLOCK, with counts of up to 3). Reads write nothing: counts are in memory, of this
process, and begin at 0. `loadtest bench eviction` compares the hit rate with other policies'.
"""

from collections.abc import Iterable

_PLACES = 2**22
"""One byte each. Entries share a place by chance: with a million entries in use, one in five that
is not used is spared once."""

_MOST = 3


class Uses:
    """Counts by key; written and read on several threads, where a lost count does not matter."""

    def __init__(self) -> None:
        self._counts = bytearray(_PLACES)

    def found(self, keys: Iterable[bytes]) -> None:
        """Count a use of each entry."""
        for key in keys:
            place = _place(key)
            if self._counts[place] < _MOST:
                self._counts[place] += 1

    def take(self, key: bytes) -> bool:
        """Take one use from an entry; return whether it had one."""
        place = _place(key)
        if not self._counts[place]:
            return False
        self._counts[place] -= 1
        return True


def _place(key: bytes) -> int:
    return int.from_bytes(key[:4], "little") % _PLACES  # keys are hashes
