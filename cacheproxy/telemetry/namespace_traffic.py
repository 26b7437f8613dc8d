"""Traffic by namespace, with a bound: the busiest by name, the rest as `other`.

The hot path counts in tallies, one for each namespace, without labels or ranks. They are drained
when metrics are asked for, once a second with several workers, into the series, which one process
owns: the supervisor, or a process by itself. So a server has no more series than are configured,
however many workers and namespaces it has, and no counter of a shown namespace ever decreases.

A namespace gets a series when it is among the busiest, and counts there from then on; what came
before stays in `other`. One that others have overtaken by far loses its series, which ends.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily

from cacheproxy.keys import short_id
from cacheproxy.telemetry.namespace_gauges import OTHER

OUTCOMES = ("hot", "exact", "semantic", "miss", "bypass")

_TALLIES = 4_096
"""Namespaces that are counted apart between two drains; further ones are counted as `other`."""

_RANK_S = 60.0
"""How often the busiest are chosen. What came before counts half each time."""

_OVERTAKES = 2.0
"""How many times as busy another namespace has to be to take a series from one."""


class Tally(msgspec.Struct, array_like=True):
    """What one namespace was answered since the last drain.

    Attributes:
        namespace: its short id, or `other`.
        answers: texts, or chat requests, by outcome.
        saved_s: upstream time that hits saved, seconds.
        saved_tokens: tokens of completions that hits saved.
    """

    namespace: str
    answers: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    saved_s: float = 0.0
    saved_tokens: int = 0


class NamespaceTallies:
    """The tallies of one process; belongs to the event loop."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def of(self, namespace_id: str) -> Tally:
        """Return a namespace's tally, for use before the next await."""
        tally = self._tallies.get(namespace_id)
        if tally is None:
            is_full = len(self._tallies) >= _TALLIES
            namespace_id, label = (
                (OTHER, OTHER) if is_full else (namespace_id, short_id(namespace_id))
            )
            tally = self._tallies.setdefault(namespace_id, Tally(label))
        return tally

    def drain(self) -> list[Tally]:
        """Return what was counted since the last call."""
        drained, self._tallies = self._tallies, {}
        return list(drained.values())


class _Series:
    """The counts of a namespace that is shown, or of all others."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(OUTCOMES, 0)
        self.saved_s = 0.0
        self.saved_tokens = 0

    def add(self, tally: Tally) -> None:
        """Add what was counted."""
        for outcome, count in tally.answers.items():
            self.answers[outcome] += count
        self.saved_s += tally.saved_s
        self.saved_tokens += tally.saved_tokens


class BusiestNamespaces:
    """The series of the busiest namespaces.

    Attributes:
        shown: how many have series of their own; 0: there are no series at all.
    """

    def __init__(
        self, registry: CollectorRegistry, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.shown = 0
        self._monotonic = monotonic
        self._other = _Series()
        self._named: dict[str, _Series] = {}
        self._traffic: dict[str, float] = {}
        self._rank_at = monotonic() + _RANK_S
        registry.register(self)

    def add(self, tallies: Sequence[Tally]) -> None:
        """Add what processes have counted."""
        if not self.shown:
            self._named.clear()
            self._traffic.clear()
            return
        for tally in tallies:
            name = tally.namespace
            if name != OTHER and (name in self._traffic or len(self._traffic) < _TALLIES):
                self._traffic[name] = self._traffic.get(name, 0.0) + sum(tally.answers.values())
        if len(self._named) != self.shown or self._monotonic() >= self._rank_at:
            self._rank()
        for tally in tallies:
            self._named.get(tally.namespace, self._other).add(tally)

    def _rank(self) -> None:
        """Give series to the busiest, and take them from those that others have overtaken."""
        ranked = sorted(self._traffic, key=self._traffic.__getitem__, reverse=True)
        by_rank = [name for name in ranked if name in self._named]
        for name in by_rank[self.shown :]:
            del self._named[name]
        for name in [name for name in ranked if name not in self._named]:
            if len(self._named) >= self.shown:
                least = min(self._named, key=lambda one: self._traffic.get(one, 0.0))
                if self._traffic[name] <= _OVERTAKES * self._traffic.get(least, 0.0):
                    break
                del self._named[least]
            self._named[name] = _Series()
        if self._monotonic() >= self._rank_at:
            self._rank_at = self._monotonic() + _RANK_S
            halved = ((name, traffic / 2) for name, traffic in self._traffic.items())
            self._traffic = {name: traffic for name, traffic in halved if traffic >= 0.5}

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples, as the registry asks for."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        answers, seconds, tokens = _families()
        if self.shown:
            for name, series in [*self._named.items(), (OTHER, self._other)]:
                for outcome, count in series.answers.items():
                    answers.add_metric((name, outcome), count)
                seconds.add_metric((name,), series.saved_s)
                tokens.add_metric((name,), series.saved_tokens)
        yield from (answers, seconds, tokens)


def _families() -> tuple[CounterMetricFamily, CounterMetricFamily, CounterMetricFamily]:
    return (
        CounterMetricFamily(
            "cacheproxy_namespace_answers",
            "Texts, or chat requests, that the busiest namespaces were answered, by outcome",
            labels=("namespace", "outcome"),
        ),
        CounterMetricFamily(
            "cacheproxy_namespace_saved_seconds",
            "Seconds of upstream time that their hits saved",
            labels=("namespace",),
        ),
        CounterMetricFamily(
            "cacheproxy_namespace_saved_tokens",
            "Tokens of completions that their hits saved",
            labels=("namespace",),
        ),
    )
