"""Tracks purges and replaced entries, to decide what this process may still use.

Every purge has a number, its generation, from an increasing counter that all processes on a store
share. An entry carries the newest generation that its process knew of when the work that made it
began: a purge with a higher number may concern it. That number can only be too old, which costs a
miss; reading it needs no store call.

Within the process, everything that is read or begun is marked with the moment, a count of the
announcements received. It may be used as long as no announcement that concerns it has arrived
since. Held entries are checked when they are next used, not when a purge arrives: a namespace may
have 100,000 entries in the hot tier, and searching them would block the event loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_MOST_SUBJECTS = 16_384
"""Namespaces and keys remembered, about 3 MB. Because of this bound, anything held since before the
oldest of them was announced is no longer used and is read from the store again."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a purge removes: all entries of a namespace, those with a tag, or the one of a key.

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
    """The moment of a subject's last announcement, and its newest purge."""

    moment: int
    generation: int


class Purges:
    """The announcements that this process has received: the store adds them, the tiers query them.

    Owned by the event loop.

    Attributes:
        generation: of the newest known purge; 0 before the first.
        moment: increases with every announcement; work that begins now is marked with it.
        is_listening: whether announcements of other processes are being received.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.moment = 0
        self.is_listening = True
        self._heard: dict[str | bytes, _Heard] = {}  # by namespace or key, the oldest first
        self._forgotten = 0

    def purged(self, scope: Scope, generation: int) -> None:
        """Record a purge; recording it again changes nothing.

        The tags of held entries are not known here, so a purge by tag counts for everything that
        is held of its namespace.
        """
        subject = scope.namespace_id if scope.key is None else scope.key
        known = self._heard.get(subject)
        if known is None or known.generation < generation:
            self.generation = max(self.generation, generation)
            self._touch(subject, generation)

    def replaced(self, keys: Iterable[bytes]) -> None:
        """Record that another process has replaced the entries of these keys."""
        for key in keys:
            known = self._heard.get(key)
            self._touch(key, known.generation if known else 0)

    def missed(self, generation: int) -> None:
        """Record that any announcement up to this newest generation may have been missed."""
        self.generation = max(self.generation, generation)
        self.moment += 1
        self._forgotten = self.moment
        self._heard.clear()

    def is_untouched(self, namespace_id: str, key: bytes, since: int) -> bool:
        """Return whether no announcement after the moment `since` concerns the entry."""
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
