"""Mutations of the product, one for each rule of the model: each breaks one rule and no other.

They show that the model needs all of its rules, and that each of them can notice something.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from cacheproxy.errors import StoreError
from cacheproxy.keys import KeyScope
from cacheproxy.routes.dialects.chunks import ChunkAssembler
from cacheproxy.routes.item_inference import ItemInference
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.stores.purges import Purges
from cacheproxy.thresholds.earned import EarnedThresholds
from cacheproxy.thresholds.sharing import EvidenceSharing
from cacheproxy.tiers import guard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack
from tests.simulation.bugs import (
    evidence_is_counted_twice,
    passer_by_cancels_check,
    shutdown_writes_labels,
    sweep_takes_over_running_purge,
)
from tests.simulation.plan import Kind

Mutation = Callable[[], AbstractContextManager[Any]]


def _patched(owner: Any, name: str, make: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    return patch.object(owner, name, make(getattr(owner, name)))


def _spoilt_vectors() -> AbstractContextManager[Any]:
    """What is read from the store is served with its bytes in another order."""

    def make(read: Any) -> Any:
        def spoil(self: Any, data: bytes, **of: Any) -> Any:
            record = read(self, data, **of)
            if record is None or not hasattr(record, "vector"):
                return record
            return record._replace(vector=record.vector[4:] + record.vector[:4])

        return spoil

    return _patched(RecordReader, "read", make)


def _short_text_keys() -> AbstractContextManager[Any]:
    """The hot tier knows texts by their first words."""
    return _patched(KeyScope, "of_text", lambda of: lambda self, text: of(self, text[:5]))


def _texts_of_all_namespaces() -> AbstractContextManager[Any]:
    """The hot tier knows texts, but not whose they are."""
    shared = KeyScope("0" * 32, "route", "fingerprint")
    of_text = KeyScope.of_text
    return _patched(KeyScope, "of_text", lambda _: lambda self, text: of_text(shared, text))


def _no_store_is_stored() -> AbstractContextManager[Any]:
    """A flight of a request with no-store is kept like any other."""

    def make(begin: Any) -> Any:
        def begin_and_keep(self: Any, item: Any, future: Any, state: Any) -> Any:
            control = replace(state.control, no_store=False)
            request = state.request._replace(control=control)
            return begin(self, item, future, replace(state, request=request))

        return begin_and_keep

    return _patched(ItemInference, "_begin", make)


def _deaf_to_purges() -> AbstractContextManager[Any]:
    """The process uses what it has whatever was purged."""
    return _patched(Purges, "is_untouched", lambda _: lambda *args: True)


def _long_hot_life() -> AbstractContextManager[Any]:
    """The hot tier keeps entries for too long."""

    def make(put: Any) -> Any:
        def put_longer(self: Any, record: Any, since: int) -> Any:
            entry = put(self, record, since)
            if entry is not None:
                entry.expires_at += 60.0
            return entry

        return put_longer

    return _patched(HotTier, "put", make)


def _half_streams() -> AbstractContextManager[Any]:
    """A stream counts as whole before its last event has come."""

    def make(take_all: Any) -> Any:
        def take(self: Any, events: Any) -> Any:
            well = take_all(self, events)
            self.is_done = self.is_done or self._choice.get("finish_reason") is not None
            return well

        return take

    return _patched(ChunkAssembler, "take_all", make)


def _open_from_the_start() -> AbstractContextManager[Any]:
    """Thresholds are open without any evidence."""
    return _patched(EarnedThresholds, "_first_served", lambda _: lambda self, certificate: 0)


def _older_epochs_are_written() -> AbstractContextManager[Any]:
    """A server writes its own evidence over that which followed a refutation."""

    def make(offer: Any) -> Any:
        def offer_own(self: Any, shared: Any) -> Any:
            if shared is not None and shared.epoch > self._ledger.epoch:
                shared = None
            return offer(self, shared)

        return offer_own

    return _patched(EarnedThresholds, "offer", make)


def _failed_writes_are_forgotten() -> AbstractContextManager[Any]:
    """Entries whose write failed are dropped without a word."""

    def make(write: Any) -> Any:
        async def write_and_forget(self: Any, batch: Any) -> Any:
            done = await write(self, batch)
            return len(batch) if isinstance(done, StoreError) else done

        return write_and_forget

    return _patched(WriteBack, "_write", make)


def _checks_are_not_woken() -> AbstractContextManager[Any]:
    """Background work that is queued waits until more comes."""

    def make(put: Any) -> Any:
        def put_quietly(self: Any, begin: Any) -> None:
            is_quiet = len(self) < 3
            with patch.object(self._came, "set") if is_quiet else nullcontext():
                put(self, begin)

        return put_quietly

    return _patched(SpareWork, "put", make)


def _sick_store_fails_requests() -> AbstractContextManager[Any]:
    """A lookup that fails is an error of the request."""

    def make(make_call: Any) -> Any:
        async def fail(self: Any, *args: Any, **more: Any) -> Any:
            answer = await make_call(self, *args, **more)
            if answer is None:
                raise StoreError("the store is sick")
            return answer

        return fail

    return _patched(guard._GuardedOp, "make", make)


@contextmanager
def _sharing_raises() -> Iterator[None]:
    """The background task that shares evidence ends with an error when the store fails."""
    share = EvidenceSharing._share_one

    async def raise_other(self: Any, name: str, earned: Any) -> None:
        try:
            await share(self, name, earned)
        except StoreError as error:
            raise RuntimeError("the store is sick") from error

    with patch.object(EvidenceSharing, "_share_one", raise_other):
        yield


class Case(NamedTuple):
    """A mutation, the kind of world in which it shows, and the seed from which on to look."""

    mutate: Mutation
    kind: Kind
    start: int = 0


MUTATIONS: dict[str, Case] = {
    "real": Case(_spoilt_vectors, "plain"),
    "key": Case(_short_text_keys, "plain"),
    "tenant": Case(_texts_of_all_namespaces, "plain"),
    "no-store": Case(_no_store_is_stored, "plain"),
    "purge": Case(_deaf_to_purges, "plain", 30),
    "ttl": Case(_long_hot_life, "plain", 64),
    "max-age": Case(
        lambda: _patched(ItemsRoute, "_is_fresh", lambda _: lambda *args: True), "plain", 76
    ),
    "complete": Case(_half_streams, "chat", 58),
    "label": Case(shutdown_writes_labels, "chat", 721),
    "certificate": Case(_open_from_the_start, "evidence"),
    "once": Case(evidence_is_counted_twice, "evidence", 994),
    "refuted": Case(_older_epochs_are_written, "evidence", 40),
    "stored": Case(_failed_writes_are_forgotten, "plain"),
    "counted": Case(sweep_takes_over_running_purge, "embedded", 1_144),
    "check": Case(passer_by_cancels_check, "plain", 503),
    "settled": Case(_checks_are_not_woken, "plain"),
    "answered": Case(_sick_store_fails_requests, "plain"),
    "unexpected": Case(_sharing_raises, "evidence"),
}
"""By the rule that each breaks."""
