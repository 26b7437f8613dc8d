"""Bugs that this product once had, put back: the simulation has to find each by itself.

Each is a context manager that patches the product; the docstring says what goes wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from cacheproxy.errors import ApiError
from cacheproxy.routes.item_inference import ItemInference
from cacheproxy.stores.embedded import notices
from cacheproxy.stores.embedded.database import transaction
from cacheproxy.stores.embedded.removal import Removal
from cacheproxy.stores.redis.purging import floors, known, purges
from cacheproxy.thresholds import sharing
from cacheproxy.thresholds.earned import EarnedThresholds
from cacheproxy.thresholds.ledger import Ledger
from cacheproxy.tiers.flights import FutureFlight
from cacheproxy.tiers.sparework import SpareWork

Bug = Callable[[], AbstractContextManager[Any]]


@contextmanager
def refuted_evidence_comes_back() -> Iterator[None]:
    """Evidence that is refuted while it is being shared is adopted again (bug 1)."""

    def adopt(self: EarnedThresholds, shared: Ledger) -> None:
        is_first = self._shared_epoch is None
        if shared.epoch > self._ledger.epoch:
            self._start_over()
        self._shared_epoch = shared.epoch
        self.unconfirmed = None
        self._ledger = shared
        self._ledger.add(self._news)
        self._refit(at_once=is_first)

    with patch.object(EarnedThresholds, "adopt", adopt):
        yield


@contextmanager
def shutdown_writes_labels() -> Iterator[None]:
    """Judgements that are cancelled at shutdown become labels (bug 5)."""
    from cacheproxy.routes.judging.evidence import Evidence
    from cacheproxy.thresholds.judged.evidence import Outcome

    ask = Evidence._ask

    async def ask_or_reject(self: Evidence, pair: Any, purpose: Any) -> Outcome | None:
        try:
            return await ask(self, pair, purpose)
        except BaseException:
            return Outcome.REJECTED

    with patch.object(Evidence, "_ask", ask_or_reject):
        yield


@contextmanager
def evidence_is_counted_twice() -> Iterator[None]:
    """Evidence whose write was applied is offered again where the reply was lost (bug 6)."""

    share_one = sharing.EvidenceSharing._share_one

    async def share_one_and_take_back(self: Any, name: str, earned: EarnedThresholds) -> None:
        try:
            await share_one(self, name, earned)
        except BaseException:
            if earned.offer_number is not None:
                earned._news.add(earned._offered)
                earned.offer_number = None
            raise

    with patch.object(sharing.EvidenceSharing, "_share_one", share_one_and_take_back):
        yield


@contextmanager
def sweep_takes_over_running_purge() -> Iterator[None]:
    """A sweep takes this process's own long purge for an abandoned one, and counts are low (8)."""

    def remove_some(connection: Any, purge: Any, now: float) -> list[Any]:
        real_execute = connection.execute
        partitions = purge.namespace + b"\0" * 8, purge.namespace + b"\xff" * 8
        with transaction(connection):
            if purge.key is not None:
                arguments: tuple[Any, ...] = (purge.key, *partitions, purge.generation)
                found = real_execute(notices._REMOVE_KEY, arguments)
            elif purge.tag is not None:
                arguments = purge.tag, purge.generation, notices.WRITE_ROWS
                found = real_execute(notices._REMOVE_TAG, arguments)
            else:
                arguments = *partitions, purge.generation, notices.WRITE_ROWS
                found = real_execute(notices._REMOVE_NAMESPACE, arguments)
            return [notices.Removed(*row) for row in found.fetchall()]

    with (
        patch.object(notices, "remove_some", remove_some),
        patch.object(Removal, "_is_running", lambda self, purge: False),
    ):
        yield


@contextmanager
def passer_by_cancels_check() -> Iterator[None]:
    """A background check has no waiter of its own, and who joins and leaves cancels it (bug 9)."""
    check = ItemInference.check

    def check_without_waiter(self: Any, item: Any, state: Any) -> Any:
        begin = check(self, item, state)

        def begin_without_waiter() -> Any:
            future = None
            with patch.object(FutureFlight, "hold", lambda self: None):
                future = begin()
            if future is not None:
                release, _ = future._callbacks[-1]
                future.remove_done_callback(release)
            return future

        return begin_without_waiter

    with patch.object(ItemInference, "check", check_without_waiter):
        yield


@contextmanager
def spare_work_dies() -> Iterator[None]:
    """The loop of background work ends for good where a piece of it raises (bug 10)."""

    async def run(self: SpareWork) -> None:
        while True:
            await self._came.wait()
            while self._waiting:
                await self._do_next()
            self._came.clear()

    check = ItemInference.check

    def check_that_raises(self: Any, item: Any, state: Any) -> Any:
        begin, submit = check(self, item, state), self._engine.submit

        def raising(givens: Any) -> Any:
            try:
                return submit(givens)
            except ApiError as error:
                raise RuntimeError("begin raised") from error

        def begin_raising() -> Any:
            with patch.object(self._engine, "submit", raising, create=True):
                return begin()

        return begin_raising

    with (
        patch.object(SpareWork, "_run", run),
        patch.object(ItemInference, "check", check_that_raises),
    ):
        yield


@contextmanager
def evicted_floors_are_taken_for_none() -> Iterator[None]:
    """What was begun before a purge is written after it, as Redis has evicted its floor (11).

    Nor does a process remember purges that are over, as was so then.
    """
    allow = floors.Floors.allow

    def allow_without_floors(
        self: floors.Floors, scores: Any, purged_at: Callable[[str], int]
    ) -> list[bool]:
        return allow(self, [scores[0] or b"0", *scores[1:]], purged_at)

    with (
        patch.object(known.KnownPurges, "remember", lambda *_: None),
        patch.object(floors.Floors, "allow", allow_without_floors),
        patch.object(purges, "since_in", lambda scores: floors.since_in(scores) or 0),
    ):
        yield


BUGS: dict[int, Bug] = {
    1: refuted_evidence_comes_back,
    5: shutdown_writes_labels,
    6: evidence_is_counted_twice,
    8: sweep_takes_over_running_purge,
    9: passer_by_cancels_check,
    10: spare_work_dies,
    11: evicted_floors_are_taken_for_none,
}
"""By their numbers in the review; from 11 on, what was found since."""
