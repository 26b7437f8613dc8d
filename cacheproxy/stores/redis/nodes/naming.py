"""Names of indexes at the nodes of a cluster.

To Redis Stack the name of an index is a key: a node takes commands about it only if the node holds
the slot of the name. So each node's index has a name with a hash tag of that node's slots.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from redis.crc import key_slot

from cacheproxy.stores.redis.index import ProbeIndex

_LAST_SHARE = 0.05
"""Tags are of a node's last slots: when slots are moved, the first ones go first."""


class _NamedIndex(ProbeIndex):
    """An index of which only the name is known, of which `fingerprint` is the part that differs."""

    @cached_property
    def _id(self) -> str:
        return self.fingerprint


def index_of_name(name: str) -> ProbeIndex | None:
    """Return the index that has a name; None if it is none of ours."""
    found = re.fullmatch(r"cp:i3:(?:\{(\d+)\}:)?([0-9a-f]{16}):(\d+)", name)
    return None if found is None else _NamedIndex(found[2], int(found[3]), found[1] or "")


def choose_tag(slots: Sequence[int], names: Iterable[str]) -> str:
    """Return the tag for a node's indexes: of existing indexes, or else the smallest suitable one.

    All processes choose the same.

    Args:
        slots: those of the node, in order; not empty.
        names: of the indexes that the node has.
    """
    held = set(slots)
    tags = {index.tag for name in names if (index := index_of_name(name)) is not None}
    usable = sorted(int(tag) for tag in tags if tag and key_slot(tag.encode()) in held)
    if usable:
        return str(usable[0])
    return _smallest(set(slots[int(len(slots) * (1 - _LAST_SHARE)) :]).__contains__)


def foreign_tag(slots: Sequence[int]) -> str | None:
    """Return a tag whose slot is another node's; None if the node has all slots."""
    held = set(slots)
    return _smallest(lambda slot: slot not in held) if len(held) < _SLOTS else None


def _smallest(is_suitable: Callable[[int], bool]) -> str:
    number = 0
    while not is_suitable(key_slot(str(number).encode())):
        number += 1
    return str(number)


_SLOTS = 16_384
