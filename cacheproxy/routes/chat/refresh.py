"""Requests that refresh expired entries behind the answer (stale-while-revalidate, RFC 5861)."""

import time
from collections.abc import Callable
from dataclasses import replace

from cacheproxy.concurrency.background import BackgroundTasks
from cacheproxy.errors import ApiError
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.state import CompletionState
from cacheproxy.routes.chat.upstream_calls import UpstreamCalls
from cacheproxy.tiers.hot import HotTier

_AT_ONCE = 8
"""Requests of the proxy's own at the same time."""


class Refresh:
    """Asks upstreams for fresh answers, a few at the same time."""

    def __init__(
        self,
        calls: UpstreamCalls,
        hot: HotTier[CompletionRecord],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; `now` returns Unix time, seconds."""
        self._calls = calls
        self._hot = hot
        self._now = now
        self._tasks = BackgroundTasks(_AT_ONCE)

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
