"""What a process has heard of purges and replaced entries, and what it may therefore not use.

Every purge has a number, its generation, from a counter that all processes on a store share and
that only ever rises. An entry carries the newest generation that its process had heard of when the
work that made it began: a purge with a higher number may concern it. That number can only be too
old, which costs a miss; taking it costs no question to the store.

Inside the process what was read or begun is marked with the moment, a count of what was heard. It
may be used as long as nothing that concerns it has been heard since. What was held is judged when
it is next used, rather than looked for when a purge is heard: a namespace may have 100,000 entries
in the hot tier, and the event loop would stand still for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_MOST_SUBJECTS = 16_384
"""Namespaces and keys remembered, some 3 MB. For want of more, what was held before the oldest of
them was heard is not used any more, and is read from the store again."""


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


@dataclass(slots=True)
class _Heard:
    """When a subject was last heard of, and the newest purge of it."""

    moment: int
    generation: int


class Purges:
    """What this process has heard; the store tells, the tiers ask. Owned by the event loop.

    Attributes:
        generation: of the newest purge heard of; 0 before the first.
        moment: rises with everything that is heard; what begins now is marked with it.
        is_listening: whether what other processes announce is being heard.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.moment = 0
        self.is_listening = True
        self._heard: dict[str | bytes, _Heard] = {}  # by namespace or key, the oldest first
        self._forgotten = 0

    def purged(self, scope: Scope, generation: int) -> None:
        """Hear of a purge; hearing of it again changes nothing.

        The tags of what is held here are not known, so that a purge by tag counts for all that is
        held of its namespace.
        """
        subject = scope.namespace_id if scope.key is None else scope.key
        known = self._heard.get(subject)
        if known is None or known.generation < generation:
            self.generation = max(self.generation, generation)
            self._touch(subject, generation)

    def replaced(self, keys: Iterable[bytes]) -> None:
        """Hear that another process has written entries over those of these keys."""
        for key in keys:
            known = self._heard.get(key)
            self._touch(key, known.generation if known else 0)

    def missed(self, generation: int) -> None:
        """Learn that anything may have been announced unheard, with this newest generation."""
        self.generation = max(self.generation, generation)
        self.moment += 1
        self._forgotten = self.moment
        self._heard.clear()

    def is_untouched(self, namespace_id: str, key: bytes, since: int) -> bool:
        """Return whether nothing was heard after the moment `since` that concerns the entry."""
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
