"""Requests that the proxy makes behind a hit: to refresh an expired entry, or to check a hit.

The fresh answer becomes an entry of its own; for a semantic hit it is evidence, too.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from cacheproxy.concurrency.background import BackgroundTasks
from cacheproxy.errors import ApiError
from cacheproxy.routes.chat.budget import Budget
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.state import CompletionState
from cacheproxy.routes.chat.upstream_calls import UpstreamCalls
from cacheproxy.tiers.hot import HotTier

_AT_ONCE = 8
"""Requests of the proxy's own at the same time."""


class Refresh:
    """Asks upstreams behind hits, within a budget."""

    def __init__(
        self,
        calls: UpstreamCalls,
        budget: Budget,
        hot: HotTier[CompletionRecord],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `now` is Unix time and `monotonic` monotonic time, seconds."""
        self._calls = calls
        self._budget = budget
        self._hot = hot
        self._now = now
        self._monotonic = monotonic
        self._tasks = BackgroundTasks(_AT_ONCE)

    @property
    def can_check(self) -> bool:
        """Whether a semantic hit could be checked now."""
        return not self._tasks.is_full and self._budget.has_any(self._monotonic())

    def check(self, state: CompletionState) -> None:
        """Ask for the answer that a semantic hit saved, and pay for it from the budget."""
        self._budget.take(self._monotonic())
        self.start(state)

    def start(self, state: CompletionState) -> None:
        """Ask for a fresh answer, unless too many requests are under way."""
        if self._tasks.is_full:
            return
        request = replace(state.request, form="plain", body=state.request.plain_body())
        self._tasks.start(self._ask(replace(state, request=request, stages_s={})))

    async def stop(self) -> None:
        """Give up the requests that are under way."""
        await self._tasks.stop()

    async def _ask(self, state: CompletionState) -> None:
        entry = self._hot.get(state.key)
        if entry is not None and entry.record.fresh_until > self._now():
            return  # another request has refreshed it
        if self._calls.in_flight(state):
            return  # another request is asking
        with self._calls.begin(state).read() as reader:
            try:
                await reader.body()
            except ApiError:
                return  # no answer and no label; it was counted where it failed
