"""What a process has heard of purges and replaced entries, and which entries it must not use.

Every purge has a number, its generation, from a counter that all processes on a store share and
that only rises. An entry carries the newest generation that its process had heard of when the work
for it began: purges with a higher generation apply to it. The number is read in the process,
without asking the store; it can only be too old, which costs a miss.

Inside the process, whatever was read or begun is marked with a moment, a count of the notices
heard. It may be used as long as no notice about it has been heard since. Entries in the hot tier
are checked when they are next used, not when a purge is heard: a namespace may have 100,000 of
them, and the event loop would stall.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_MOST_SUBJECTS = 16_384
"""Namespaces and keys remembered, some 3 MB. Entries that were read before the oldest of these
notices are not used any more, and are read from the store again."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a purge removes: a namespace's entries, those of them with a tag, or the one of a key.

    Attributes:
        namespace_id: as in `Partition`.
        tag: one of an entry's tags, or None.
        key: an entry's key, 32 bytes, or None.
    """

    namespace_id: str
    tag: str | None = None
    key: bytes | None = None

    def __post_init__(self) -> None:
        if self.tag is not None and self.key is not None:
            raise ValueError("a purge is by tag or by key, not by both")


@dataclass(frozen=True, slots=True)
class PurgeNote:
    """The note that a store keeps of a purge for an hour; names are hashed (`hex_id`).

    Attributes:
        generation: its number.
        namespace: whose entries it removed.
        tag: those with this tag only, or None.
        key: the entry of this key only, or None.
    """

    generation: int
    namespace: str
    tag: str | None = None
    key: bytes | None = None


@dataclass(slots=True)
class _Heard:
    """When a namespace or key was last heard of, and the newest purge of it."""

    moment: int
    generation: int


class Purges:
    """What this process has heard, reported by the store and read by the tiers on one event loop.

    Attributes:
        generation: of the newest purge heard of; 0 before the first.
        moment: rises with each notice; work that begins now is marked with it.
        is_listening: whether notices of other processes are being received.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.moment = 0
        self.is_listening = True
        self._heard: dict[str | bytes, _Heard] = {}  # by namespace or key, the oldest first
        self._forgotten = 0

    def purged(self, scope: Scope, generation: int) -> None:
        """Take note of a purge; repeating this changes nothing.

        The tags of entries in the process are not known, so a purge by tag applies to all of its
        namespace here.
        """
        subject = scope.namespace_id if scope.key is None else scope.key
        known = self._heard.get(subject)
        if known is None or known.generation < generation:
            self.generation = max(self.generation, generation)
            self._touch(subject, generation)

    def replaced(self, keys: Iterable[bytes]) -> None:
        """Take note that another process has replaced the entries of these keys."""
        for key in keys:
            known = self._heard.get(key)
            self._touch(key, known.generation if known else 0)

    def missed(self, generation: int) -> None:
        """Take note that notices up to this generation may have been missed."""
        self.generation = max(self.generation, generation)
        self.moment += 1
        self._forgotten = self.moment
        self._heard.clear()

    def is_untouched(self, namespace_id: str, key: bytes, since: int) -> bool:
        """Return whether no notice after the moment `since` concerns the entry."""
        return since >= max(self._forgotten, self._last(namespace_id), self._last(key))

    def _last(self, subject: str | bytes) -> int:
        known = self._heard.get(subject)
        return 0 if known is None else known.moment

    def _touch(self, subject: str | bytes, generation: int) -> None:
        self.moment += 1
        self._heard.pop(subject, None)
        self._heard[subject] = _Heard(self.moment, generation)
        if len(self._heard) > _MOST_SUBJECTS:
            oldest = next(iter(self._heard))
            self._forgotten = self._heard.pop(oldest).moment
