"""Which of several owners' things goes first where they share a bound: max-min fairness.

Each owner has a shelf with its things in order of use. If the bound is exceeded, the owner that
holds the most, in proportion to its share, loses what it used longest ago. So an owner that holds
less than its part of the bound loses nothing, whatever the others do; alone, an owner may use all
of it, up to a bound of its own where one is set. Without a second owner this is a plain
least-recently-used order.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Terms(NamedTuple):
    """What an owner may hold.

    Attributes:
        share: its part, relative to the others', greater than 0.
        most: the most that it may hold, whatever is free.
    """

    share: float = 1.0
    most: float = math.inf


TermsOf = Callable[[str], Terms]
"""Returns the terms of an owner."""

_EQUAL = Terms()


def equal(_: str) -> Terms:
    """Return the same terms for every owner."""
    return _EQUAL


class Shelf(Generic[K, V]):
    """What one owner holds: its things, the one used longest ago first, and their size."""

    __slots__ = ("most", "owner", "share", "size", "things")

    def __init__(self, owner: str, terms: Terms) -> None:
        self.owner = owner
        self.share, self.most = terms
        self.size = 0
        self.things: OrderedDict[K, V] = OrderedDict()


class Shelves(Generic[K, V]):
    """The shelves of all owners; whoever puts things there also keeps their sizes.

    Attributes:
        size: of all things together.
    """

    def __init__(self, most: float, terms: TermsOf = equal) -> None:
        """Hold things of at most this size together."""
        self.size = 0
        self._most = most
        self._terms = terms
        self._shelves: dict[str, Shelf[K, V]] = {}

    def of(self, owner: str) -> Shelf[K, V]:
        """Return an owner's shelf; a new one counts once something was put there."""
        shelf = self._shelves.get(owner)
        return Shelf(owner, self._terms(owner)) if shelf is None else shelf

    def grow(self, shelf: Shelf[K, V], size: int) -> None:
        """Account for things that were put on a shelf or, with a negative size, taken from it."""
        shelf.size += size
        self.size += size
        if shelf.things:
            self._shelves[shelf.owner] = shelf
        else:
            self._shelves.pop(shelf.owner, None)

    def over(self, grown: Shelf[K, V]) -> Shelf[K, V] | None:
        """Return the shelf whose oldest thing has to go now that one has grown, or None."""
        if grown.size > grown.most:
            return grown
        if self.size <= self._most:
            return None
        if len(self._shelves) == 1:
            return grown
        return max(self._shelves.values(), key=lambda shelf: shelf.size / shelf.share)

    def __iter__(self) -> Iterator[Shelf[K, V]]:
        """Yield the shelves that hold anything."""
        return iter(self._shelves.values())


class FairMap(Generic[K, V]):
    """A bounded map whose keys belong to owners; each thing counts as one."""

    def __init__(
        self,
        most: int,
        owner_of: Callable[[K], str],
        *,
        forgotten: Callable[[K], object] = lambda _: None,
        terms: TermsOf = equal,
    ) -> None:
        """Keep at most `most` things; `forgotten` hears the key of each that had to go."""
        self._most = most
        self._terms = terms
        self._owner_of = owner_of
        self._forgotten = forgotten
        self._shelves = Shelves[K, V](most, terms)

    def __len__(self) -> int:
        """Return how many things there are."""
        return self._shelves.size

    def __contains__(self, key: K) -> bool:
        """Return whether there is something under a key."""
        return key in self._shelves.of(self._owner_of(key)).things

    def get(self, key: K) -> V | None:
        """Return the thing of a key, which is then the one of its owner that was used last."""
        things = self._shelves.of(self._owner_of(key)).things
        value = things.get(key)
        if value is not None:
            things.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep a thing; another one may have to go."""
        shelf = self._shelves.of(self._owner_of(key))
        is_new = key not in shelf.things
        shelf.things[key] = value
        if not is_new:
            shelf.things.move_to_end(key)
            return
        self._shelves.grow(shelf, 1)
        if over := self._shelves.over(shelf):
            oldest, _ = over.things.popitem(last=False)
            self._shelves.grow(over, -1)
            self._forgotten(oldest)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield the keys with their things, owner by owner, the one used last first."""
        for shelf in self._shelves:
            yield from reversed(shelf.things.items())

    def values(self) -> Iterator[V]:
        """Yield the things in the order of `items`."""
        return (value for _, value in self.items())

    def clear(self) -> None:
        """Forget everything."""
        self._shelves = Shelves(self._most, self._terms)
