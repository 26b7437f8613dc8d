"""All upstreams: which of them have a model, in which order they are asked, and their breakers.

The first upstream that has the model is asked first. If it cannot be reached, does not answer in
time or answers with a server's error, the next one is asked; the last one's answer is passed on
whatever it is. By then the client has received nothing, and asking for a completion twice costs no
more than its price. A 429 goes to the client at once: it is the upstream's own limit.

Each upstream has a circuit breaker, as stores have.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import Unavailable, UpstreamFailed
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.timed_breaker import TimedBreaker

if TYPE_CHECKING:
    from cacheproxy.upstreams.client import Upstream, UpstreamResponse

logger = logging.getLogger(__name__)

_POLICY = BreakerPolicy(first_pause_s=1.0, longest_pause_s=30.0)
"""Longer pauses than a store's: the probe is a client's request."""


class GuardedUpstream:
    """One upstream behind its breaker."""

    def __init__(
        self,
        upstream: "Upstream",
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.upstream = upstream
        gauge = metrics.upstream_breaker_state.labels(upstream.name)
        self._breaker = TimedBreaker(_POLICY, gauge=gauge, monotonic=monotonic, chance=chance)
        self._errors = metrics.upstream_errors

    @property
    def pause_s(self) -> float:
        """The time until it may be asked again, seconds."""
        return self._breaker.pause_s

    def may_ask(self) -> bool:
        """Return whether it may be asked now; the caller then has to report how that ended."""
        return self._breaker.may_call()

    def succeeded(self) -> None:
        """Report an answer."""
        self._breaker.succeeded()

    def failed(self, kind: str, *, began_at: float) -> None:
        """Report a call that began at `began_at` (monotonic) and brought no answer."""
        self._errors.labels(self.upstream.name, kind).inc()
        if self._breaker.failed(began_at=began_at):
            logger.warning("circuit open for upstream %s (%s)", self.upstream.name, kind)

    def abandoned(self, *, began_at: float) -> None:
        """Report a call whose caller has left; as a probe it has failed."""
        self._breaker.abandoned(began_at=began_at)


class Upstreams:
    """The configured upstreams, in order."""

    def __init__(self, settings: Mapping[str, UpstreamSettings], metrics: Metrics) -> None:
        self._metrics = metrics
        self._all: dict[str, GuardedUpstream] = {}
        self._retired: list[Upstream] = []
        self._is_running = False
        self.prepare(settings)()

    def prepare(self, settings: Mapping[str, UpstreamSettings]) -> Callable[[], None]:
        """Return what makes these the upstreams; those that have not changed stay as they are.

        An upstream that changes begins with a new pool and a closed breaker. Its old pool is closed
        when the answers that come from it are read.

        Raises:
            ConfigError: the files for TLS of one of them cannot be used.
        """
        new = {
            name: given
            for name, given in settings.items()
            if name not in self._all or self._all[name].upstream.settings != given
        }
        changed = _make(new, self._metrics) if new else {}

        def commit() -> None:
            before = self._all
            self._all = {
                name: GuardedUpstream(changed[name], self._metrics)
                if name in changed
                else before[name]
                for name in settings
            }
            for name, one in before.items():
                if self._all.get(name) is not one:
                    one.upstream.retire()
                    self._retired.append(one.upstream)
                if name not in self._all:
                    self._metrics.upstream_breaker_state.remove(name)
            self._retired = [one for one in self._retired if one.is_open]
            if self._is_running:
                for upstream in changed.values():
                    upstream.start()

        return commit

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._all)

    @property
    def have_chat(self) -> bool:
        """Whether any of them has chat models."""
        return any(one.upstream.settings.has_chat for one in self._all.values())

    def all(self) -> "list[Upstream]":
        """Return the upstreams, in order."""
        return [one.upstream for one in self._all.values()]

    def embeddings(self) -> dict[str, UpstreamSettings]:
        """Return the embedding models, with the upstream that is asked first for each."""
        found: dict[str, UpstreamSettings] = {}
        for one in self._all.values():
            for model in one.upstream.settings.embeddings:
                found.setdefault(model, one.upstream.settings)
        return found

    def rerankers(self) -> dict[str, UpstreamSettings]:
        """Return the rerankers, with the upstream that is asked first for each."""
        found: dict[str, UpstreamSettings] = {}
        for one in self._all.values():
            for model in one.upstream.settings.rerank:
                found.setdefault(model, one.upstream.settings)
        return found

    def models(self) -> list[str]:
        """Return the chat models that are configured by name."""
        named = (model for one in self._all.values() for model in one.upstream.settings.models)
        return list(dict.fromkeys(named))

    def first(self, model: str) -> UpstreamSettings | None:
        """Return the settings of the upstream that is asked first for a model, if there is any."""
        having = self._having(model)
        return having[0].upstream.settings if having else None

    def any_for(self, model: str | None) -> "Upstream":
        """Return the upstream that has a model, else the first one."""
        having = self._having(model) if model is not None else []
        return (having or list(self._all.values()))[0].upstream

    def passes_authorization(self, model: str) -> bool:
        """Return whether any upstream of the model is sent the caller's own authorization."""
        return any(one.upstream.settings.pass_authorization for one in self._having(model))

    def start(self) -> None:
        """Make the pools, on the running event loop."""
        self._is_running = True
        for one in self._all.values():
            one.upstream.start()

    async def stop(self) -> None:
        """Close the pools."""
        self._is_running = False
        for one in [*self.all(), *self._retired]:
            await one.stop()

    async def post(
        self, model: str, path: str, body: bytes, client: Mapping[bytes, bytes]
    ) -> "UpstreamResponse":
        """Return the answer of the first upstream that has one; it must be closed.

        Raises:
            UpstreamFailed: the last one had none.
            Unavailable: the circuits of all of them are open.
        """
        having = self._having(model, path)
        for one in having:
            one.upstream.enter()
        try:
            return await self._post(having, path, body, client)
        finally:
            for one in having:
                one.upstream.leave()

    async def _post(
        self,
        having: Sequence[GuardedUpstream],
        path: str,
        body: bytes,
        client: Mapping[bytes, bytes],
    ) -> "UpstreamResponse":
        failure: UpstreamFailed | None = None
        refused: UpstreamResponse | None = None
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
        """Count an answer that began and was cut off: the model's fault, not the server's."""
        self._metrics.upstream_errors.labels(upstream, kind).inc()

    def _having(self, model: str, path: str = "") -> list[GuardedUpstream]:
        return [one for one in self._all.values() if one.upstream.has(model, path)]


def _make(settings: Mapping[str, UpstreamSettings], metrics: Metrics) -> "dict[str, Upstream]":
    # Here, as a server without upstreams can do without the 8 MB that aiohttp takes.
    from cacheproxy.upstreams.client import Upstream

    return {name: Upstream(name, given, metrics) for name, given in settings.items()}


def _unavailable(having: Sequence[GuardedUpstream]) -> Unavailable:
    # There is none where a reload has just taken the last one out.
    pause_s = min((one.pause_s for one in having), default=0.0)
    return Unavailable(
        "no upstream answers", code="upstream_unavailable", retry_after_s=1 + int(pause_s)
    )
