"""Traffic by namespace, with a bound: the busiest by name, the rest as `other`.

The hot path counts in tallies, one for each namespace, without labels or ranks. They are drained
when metrics are asked for, once a second with several workers, into the series, which one process
owns: the supervisor, or a process by itself. So a server has no more series than are configured,
however many workers and namespaces it has, and no counter of a shown namespace ever decreases.

A namespace gets a series when it is among the busiest, and counts there from then on; what came
before stays in `other`. One that others have overtaken by far loses its series, which ends.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily

from cacheproxy.keys import short_id
from cacheproxy.telemetry.namespaces.gauges import OTHER, OVERTAKES

OUTCOMES = ("hot", "exact", "semantic", "miss", "bypass")

_TALLIES = 4_096
"""Namespaces that are counted apart between two drains; further ones are counted as `other`."""

_Key = tuple[str, str]
"""The label of a model, and the short id of a namespace."""

_RANK_S = 60.0
"""How often the busiest are chosen. What came before counts half each time."""


class Tally(msgspec.Struct, array_like=True):
    """What one namespace was answered under one model since the last drain.

    Attributes:
        model: its label in the metrics.
        namespace: its short id, or `other`.
        answers: texts, or chat requests, by outcome.
        saved_s: upstream time that hits saved, seconds.
        saved_tokens: tokens of completions that hits saved.
        saved_cost: what these cost, by the configured prices.
    """

    model: str
    namespace: str
    answers: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    saved_s: float = 0.0
    saved_tokens: int = 0
    saved_cost: float = 0.0


class Traffic:
    """How busy each namespace is: its answers, of which what came before counts less and less."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._halve_at = monotonic() + _RANK_S
        self.answers: dict[_Key, float] = {}

    def add(self, tallies: Sequence[Tally]) -> None:
        """Add what was counted."""
        for tally in tallies:
            key = tally.model, tally.namespace
            if OTHER not in key and (key in self.answers or len(self.answers) < _TALLIES):
                self.answers[key] = self.answers.get(key, 0.0) + sum(tally.answers.values())

    @property
    def is_due(self) -> bool:
        """Whether it is time to choose the busiest again."""
        return self._monotonic() >= self._halve_at

    def halve(self) -> None:
        """Have what came before count half, and forget those that are idle."""
        self._halve_at = self._monotonic() + _RANK_S
        halved = ((key, answers / 2) for key, answers in self.answers.items())
        self.answers = {key: answers for key, answers in halved if answers >= 0.5}


class NamespaceTallies:
    """The tallies of one process, and how busy its namespaces are; belongs to the event loop."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._traffic = Traffic(monotonic)

    def of(self, model: str, namespace_id: str) -> Tally:
        """Return the tally of a model's label and a namespace, for use before the next await."""
        tally = self._tallies.get((model, namespace_id))
        if tally is None:
            is_full = len(self._tallies) >= _TALLIES
            namespace_id, label = (
                (OTHER, OTHER) if is_full else (namespace_id, short_id(namespace_id))
            )
            tally = self._tallies.setdefault((model, namespace_id), Tally(model, label))
        return tally

    def drain(self) -> list[Tally]:
        """Return what was counted since the last call."""
        drained, self._tallies = list(self._tallies.values()), {}
        self._traffic.add(drained)
        if self._traffic.is_due:
            self._traffic.halve()
        return drained

    def busyness(self, model: str, namespace: str) -> float:
        """Return how many answers the namespace with a short id had lately."""
        return self._traffic.answers.get((model, namespace), 0.0)


class _Series:
    """The counts of a namespace that is shown, or of all others."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(OUTCOMES, 0)
        self.saved_s = self.saved_cost = 0.0
        self.saved_tokens = 0

    def add(self, tally: Tally) -> None:
        """Add what was counted."""
        for outcome, count in tally.answers.items():
            self.answers[outcome] += count
        self.saved_s += tally.saved_s
        self.saved_tokens += tally.saved_tokens
        self.saved_cost += tally.saved_cost


class BusiestNamespaces:
    """The series of the busiest namespaces.

    Attributes:
        shown: how many have series of their own; 0: there are no series at all.
    """

    def __init__(
        self, registry: CollectorRegistry, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.shown = 0
        self._others: dict[str, _Series] = defaultdict(_Series)
        self._named: dict[_Key, _Series] = {}
        self._traffic = Traffic(monotonic)
        registry.register(self)

    def add(self, tallies: Sequence[Tally]) -> None:
        """Add what processes have counted."""
        if not self.shown:
            self._named.clear()
            self._traffic.answers.clear()
            return
        self._traffic.add(tallies)
        if len(self._named) != self.shown or self._traffic.is_due:
            self._rank()
        for tally in tallies:
            named = self._named.get((tally.model, tally.namespace))
            (self._others[tally.model] if named is None else named).add(tally)

    def _rank(self) -> None:
        """Give series to the busiest, and take them from those that others have overtaken."""
        traffic = self._traffic.answers
        ranked = sorted(traffic, key=traffic.__getitem__, reverse=True)
        by_rank = [key for key in ranked if key in self._named]
        for key in by_rank[self.shown :]:
            del self._named[key]
        for key in [key for key in ranked if key not in self._named]:
            if len(self._named) >= self.shown:
                least = min(self._named, key=lambda one: traffic.get(one, 0.0))
                if traffic[key] <= OVERTAKES * traffic.get(least, 0.0):
                    break
                del self._named[least]
            self._named[key] = _Series()
        if self._traffic.is_due:
            self._traffic.halve()

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples, as the registry asks for."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; what was never saved has no series."""
        answers, *saved = families = _families()
        others = (((model, OTHER), series) for model, series in self._others.items())
        for labels, series in [*self._named.items(), *others] if self.shown else []:
            for outcome, count in series.answers.items():
                answers.add_metric((*labels, outcome), count)
            amounts = (series.saved_s, series.saved_tokens, series.saved_cost)
            for family, amount in zip(saved, amounts, strict=True):
                if amount:
                    family.add_metric(labels, amount)
        yield from families


def _families() -> list[CounterMetricFamily]:
    labels = ("model", "namespace")
    return [
        CounterMetricFamily(
            "cacheproxy_namespace_answers",
            "Texts, or chat requests, that the busiest namespaces were answered, by outcome",
            labels=(*labels, "outcome"),
        ),
        CounterMetricFamily(
            "cacheproxy_namespace_saved_seconds",
            "Seconds of upstream time that their hits saved",
            labels=labels,
        ),
        CounterMetricFamily(
            "cacheproxy_namespace_saved_tokens",
            "Tokens of completions that their hits saved",
            labels=labels,
        ),
        CounterMetricFamily(
            "cacheproxy_namespace_saved_cost",
            "What those cost, by the configured prices",
            labels=labels,
        ),
    ]
