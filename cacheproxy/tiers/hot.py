"""The hot tier: recently used entries in this process, bounded by bytes, which respect their TTL.

It finds an entry by its key, or by the raw text that a client sent, which avoids tokenizing. It
also keeps rendered parts of responses, so that a repeated hit only joins bytes. The event loop owns
it; nothing here waits.

Tenants divide the memory (`fairness.shelves`): what one reads or writes evicts nothing of another
that holds less than its part.

Once this process learns that an entry was purged or replaced, lookups no longer return it. Its
memory is released at the next lookup or by eviction.
"""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from cacheproxy.fairness.shelves import Shelf, Shelves, TermsOf, equal
from cacheproxy.keys import owner_of
from cacheproxy.records import Record
from cacheproxy.stores.purges import Purges

R = TypeVar("R", bound=Record)

_ENTRY_BYTES = 900
"""Bytes of one entry's Python objects besides its payload and rendered parts (tracemalloc,
CPython 3.11)."""

_TEXT_KEY_BYTES = 220
"""Bytes of the Python objects of one more text for an entry (tracemalloc, CPython 3.11)."""

_MOST_TEXTS = 16
"""Texts remembered per entry: endless variants of one text must not grow its entry."""


class HotEntry(Generic[R]):
    """One entry with its expiry on the monotonic clock and its rendered parts.

    `since` is the latest moment (`Purges`) at which it is known not to be purged or replaced.
    """

    __slots__ = (
        *("_tier", "expires_at", "record", "rendered", "shelf", "since", "size_bytes"),
        "text_keys",
    )

    def __init__(
        self,
        tier: "HotTier[R]",
        shelf: "Shelf[bytes, HotEntry[R]]",
        record: R,
        expires_at: float,
        since: int,
    ) -> None:
        self.shelf = shelf
        self.record = record
        self.expires_at = expires_at
        self.since = since
        self.rendered: dict[str, bytes] = {}
        self.text_keys: list[bytes] = []
        self.size_bytes = _ENTRY_BYTES + record.size_bytes
        self._tier = tier

    def remember(self, form: str, rendered: bytes) -> None:
        """Keep one rendered form of the payload for the next hit."""
        self.rendered[form] = rendered
        self._tier.grow(self, len(rendered))


class HotTier(Generic[R]):
    """Entries within `max_bytes`, of which the least recently used go first; 0 disables it."""

    def __init__(
        self,
        max_bytes: int,
        purges: Purges,
        *,
        terms: TermsOf = equal,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; `terms` returns what of the memory a tenant may have."""
        self._max_bytes = max_bytes
        self._purges = purges
        self._shelves = Shelves[bytes, HotEntry[R]](max_bytes, terms)
        self._entries: dict[bytes, HotEntry[R]] = {}
        self._keys_by_text: dict[bytes, bytes] = {}
        self._monotonic = monotonic
        self._now = now

    def __len__(self) -> int:
        """Return how many entries are held."""
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """The memory that the entries occupy, bytes."""
        return self._shelves.size

    def get(self, key: bytes) -> HotEntry[R] | None:
        """Return the live entry of a key."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        is_touched = entry.since != self._purges.moment and not self._stands(entry)
        if is_touched or entry.expires_at <= self._monotonic():
            self._drop(key)
            return None
        entry.shelf.things.move_to_end(key)
        return entry

    def get_by_text(self, text_key: bytes) -> HotEntry[R] | None:
        """Return the live entry that this raw text mapped to before."""
        key = self._keys_by_text.get(text_key)
        return None if key is None else self.get(key)

    def put(self, record: R, since: int) -> HotEntry[R] | None:
        """Keep a record until it expires or is evicted; return its entry, if it was kept.

        `since` is the moment at which reading or computing it began: a record that was purged or
        replaced since then is not kept.
        """
        if not self._max_bytes:
            return None
        if not self._purges.is_untouched(record.namespace_id, record.key, since):
            return None  # and what may be here is newer
        self._drop(record.key)
        ttl_s = record.expires_at - self._now()
        if ttl_s <= 0:
            return None
        # A later step of the wall clock must not change the entry's lifetime.
        shelf = self._shelves.of(owner_of(record.namespace_id))
        entry = HotEntry(self, shelf, record, self._monotonic() + ttl_s, self._purges.moment)
        if entry.size_bytes > min(self._max_bytes, shelf.most):
            return None
        self._entries[record.key] = shelf.things[record.key] = entry
        self._shelves.grow(shelf, entry.size_bytes)
        self._make_room(shelf)
        return entry

    def link_text(self, text_key: bytes, key: bytes) -> None:
        """Map a raw text to an entry that is kept here."""
        entry = self._entries.get(key)
        if entry is None or text_key in self._keys_by_text or len(entry.text_keys) >= _MOST_TEXTS:
            return
        entry.text_keys.append(text_key)
        self._keys_by_text[text_key] = key
        self.grow(entry, _TEXT_KEY_BYTES)

    def grow(self, entry: HotEntry[R], more_bytes: int) -> None:
        """Account for bytes that an entry has gained since it was added."""
        if self._entries.get(entry.record.key) is not entry:
            return
        entry.size_bytes += more_bytes
        self._shelves.grow(entry.shelf, more_bytes)
        self._make_room(entry.shelf)

    def _stands(self, entry: HotEntry[R]) -> bool:
        record = entry.record
        if not self._purges.is_untouched(record.namespace_id, record.key, entry.since):
            return False
        entry.since = self._purges.moment
        return True

    def _make_room(self, grown: Shelf[bytes, HotEntry[R]]) -> None:
        while over := self._shelves.over(grown):
            self._drop(next(iter(over.things)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        del entry.shelf.things[key]
        self._shelves.grow(entry.shelf, -entry.size_bytes)
        for text_key in entry.text_keys:
            del self._keys_by_text[text_key]
