"""How much of a shared pool an owner may take, so that something is always left for others.

Dynamic thresholds (Choudhury and Hahne, 1998, IEEE/ACM Transactions on Networking 6:130): an owner
may hold as much as is free at most. One that takes all it can holds half of the pool, two a third
each, and whoever comes later finds room. Nothing has to be configured for each owner, and work that
belongs to no one (`owner.NOBODY`), as without API keys, may take all.
"""

from cacheproxy.fairness.owner import NOBODY


class FairPool:
    """A pool of `size` places.

    Attributes:
        taken: places that are taken.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.taken = 0
        self._taken_by: dict[str, int] = {}

    def has_room(self, owner: str) -> bool:
        """Return whether an owner may take a place: whether it has fewer than are free."""
        free = self._size - self.taken
        return free > (0 if owner == NOBODY else self._taken_by.get(owner, 0))

    def take(self, owner: str) -> bool:
        """Take a place for an owner, if it may; return whether it did."""
        if not self.has_room(owner):
            return False
        self.taken += 1
        self._taken_by[owner] = self._taken_by.get(owner, 0) + 1
        return True

    def give_back(self, owner: str) -> None:
        """Give a place back."""
        self.taken -= 1
        left = self._taken_by[owner] - 1
        if left:
            self._taken_by[owner] = left
        else:
            del self._taken_by[owner]
