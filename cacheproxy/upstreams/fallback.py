"""All upstreams: which ones serve a model, in which order they are tried, and their breakers.

Upstreams that serve the model are tried in the configured order. If one cannot be reached, misses
its deadline or answers with a server error, the next one is tried; the last one's answer is
forwarded. A retry is safe, because no part of an answer has been forwarded yet; its only cost is
the price of a second completion. A 429 is meant for the client and is forwarded at once.

Each upstream has a circuit breaker, of the same kind as stores have.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence

from cacheproxy.errors import Unavailable, UpstreamFailed
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.breaker import Breaker, BreakerPolicy, BreakerState
from cacheproxy.upstreams.client import Upstream, UpstreamResponse

logger = logging.getLogger(__name__)

_POLICY = BreakerPolicy(first_pause_s=1.0, longest_pause_s=30.0)
"""Longer pauses than a store's, because the probe is a client's request."""

_STATE_VALUES: dict[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}


class GuardedUpstream:
    """One upstream behind its breaker."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.upstream = upstream
        self._breaker = Breaker(_POLICY, chance)
        self._monotonic = monotonic
        self._state = metrics.upstream_breaker_state.labels(upstream.name)
        self._state.set(_STATE_VALUES["closed"])
        self._errors = metrics.upstream_errors

    @property
    def pause_s(self) -> float:
        """Seconds until its open circuit may be probed."""
        return max(self._breaker.probe_at - self._monotonic(), 0.0)

    def may_ask(self) -> bool:
        """Return whether it may be called now; if so, the caller must report the result."""
        if self._breaker.state == "closed":
            return True
        may = self._breaker.begin_probe(self._monotonic())
        self._show()
        return may

    def succeeded(self) -> None:
        """Record an answer."""
        self._breaker.succeeded(self._monotonic())
        self._show()

    def failed(self, kind: str, *, began_at: float) -> None:
        """Record a call that began at `began_at` (monotonic, seconds) and failed."""
        self._errors.labels(self.upstream.name, kind).inc()
        was_closed = self._breaker.state == "closed"
        self._breaker.failed(self._monotonic(), began_at=began_at)
        if was_closed and self._breaker.state != "closed":
            logger.warning("circuit open for upstream %s", self.upstream.name)
        self._show()

    def abandoned(self, *, began_at: float) -> None:
        """Record a call that its caller abandoned; if it was the probe, the probe has failed."""
        if self._breaker.state == "half-open":
            self._breaker.failed(self._monotonic(), began_at=began_at)
            self._show()

    def broke_off(self, kind: str) -> None:
        """Count an answer that broke off: a failure of the model, not of the server."""
        self._errors.labels(self.upstream.name, kind).inc()

    def _show(self) -> None:
        self._state.set(_STATE_VALUES[self._breaker.state])


class Upstreams:
    """The configured upstreams, in order."""

    def __init__(self, settings: Mapping[str, UpstreamSettings], metrics: Metrics) -> None:
        self._all = {
            name: GuardedUpstream(Upstream(name, given, metrics), metrics)
            for name, given in settings.items()
        }

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._all)

    @property
    def have_chat(self) -> bool:
        """Whether any of them has chat models."""
        settings = (one.upstream.settings for one in self._all.values())
        return any(given.models or not given.embeddings for given in settings)

    def embeddings(self) -> dict[str, UpstreamSettings]:
        """Return the embedding models, each with the upstream that is tried first."""
        found: dict[str, UpstreamSettings] = {}
        for one in self._all.values():
            for model in one.upstream.settings.embeddings:
                found.setdefault(model, one.upstream.settings)
        return found

    def models(self) -> list[str]:
        """Return the chat models that are listed by name in the settings."""
        named = (model for one in self._all.values() for model in one.upstream.settings.models)
        return list(dict.fromkeys(named))

    def first(self, model: str) -> UpstreamSettings | None:
        """Return the settings of the upstream that is tried first for a model, if there is one."""
        having = self._having(model)
        return having[0].upstream.settings if having else None

    def passes_authorization(self, model: str) -> bool:
        """Return whether any upstream of the model gets the caller's own authorization."""
        return any(one.upstream.settings.pass_authorization for one in self._having(model))

    def start(self) -> None:
        """Create the pools, on the running event loop."""
        for one in self._all.values():
            one.upstream.start()

    async def stop(self) -> None:
        """Close the pools."""
        for one in self._all.values():
            await one.upstream.stop()

    async def post(
        self, model: str, path: str, body: bytes, client: Mapping[bytes, bytes]
    ) -> UpstreamResponse:
        """Return the answer of the first upstream that gives one; it must be closed.

        Raises:
            UpstreamFailed: the last upstream failed too.
            Unavailable: the circuits of all upstreams are open.
        """
        failure: UpstreamFailed | None = None
        refused: UpstreamResponse | None = None
        having = self._having(model, path)
        for one in having:
            if not one.may_ask():
                continue
            began_at = time.monotonic()
            try:
                answer = await one.upstream.post(path, body, client)
            except UpstreamFailed as error:
                one.failed((error.code or "").removeprefix("upstream_"), began_at=began_at)
                failure = error
                continue
            except BaseException:
                one.abandoned(began_at=began_at)
                if refused is not None:
                    refused.close()
                raise
            if refused is not None:
                refused.close()
            if answer.head.status < 500 or len(having) == 1:
                one.succeeded()
                return answer
            one.failed("status", began_at=began_at)
            refused = answer
        if refused is not None:
            return refused
        raise failure or _unavailable(having)

    def broke_off(self, upstream: str, kind: str) -> None:
        """Count an answer of an upstream that broke off."""
        self._all[upstream].broke_off(kind)

    def _having(self, model: str, path: str = "") -> list[GuardedUpstream]:
        return [one for one in self._all.values() if one.upstream.has(model, path)]


def _unavailable(having: Sequence[GuardedUpstream]) -> Unavailable:
    pause_s = min(one.pause_s for one in having)
    return Unavailable(
        "no upstream answers", code="upstream_unavailable", retry_after_s=1 + int(pause_s)
    )
