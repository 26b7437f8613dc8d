"""The last minutes of metrics for the built-in page: small samples in a ring buffer.

Counters are kept as totals, so that a reader can take differences over any span and compare the
page with `/metrics`. With several workers, the supervisor keeps the ring for their sums.
"""

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Protocol, cast

import msgspec

from cacheproxy.telemetry.merged import (
    Family,
    Sample,
    TextFormat,
    expose,
    take_snapshot_in_turns,
)
from cacheproxy.telemetry.metrics import LATENCY_BUCKETS, Metrics

SAMPLE_EVERY_S = 2.0
_SAMPLES = 300

FIGURES = frozenset(
    (
        "cacheproxy_batch_texts_sum",
        "cacheproxy_hot_bytes",
        "cacheproxy_hot_entries",
        "cacheproxy_inference_duration_seconds_sum",
        "cacheproxy_lookups_total",
        "cacheproxy_purges_heard",
        "cacheproxy_queue_depth",
        "cacheproxy_request_duration_seconds_bucket",
        "cacheproxy_requests_total",
        "cacheproxy_saved_seconds_total",
        "cacheproxy_saved_tokens_total",
        "cacheproxy_shed_total",
        "cacheproxy_store_breaker_state",
        "cacheproxy_store_bytes",
        "cacheproxy_store_entries",
        "cacheproxy_store_errors_total",
        "cacheproxy_upstream_breaker_state",
        "cacheproxy_upstream_errors_total",
        "cacheproxy_upstream_responses_total",
        "cacheproxy_workers",
        "cacheproxy_writeback_dropped_total",
        "cacheproxy_writeback_queue_entries",
        "process_resident_memory_bytes",
    )
)
"""Names of the metrics that are read; nothing else is collected for the page."""


class Figures(msgspec.Struct, frozen=True):
    """The counters and gauges of all workers at one time.

    Attributes:
        at: Unix time, seconds.
        requests: answered requests, by status.
        durations: number of requests answered with 200 in each of `LATENCY_BUCKETS` and above, by
            outcome.
        texts: texts looked up, and chat requests.
        hits: hits among those, by tier.
        inferred: texts that the model has read, in `inference_s` seconds of its threads.
        spared_s: approximate inference time that hits have saved, seconds.
        upstream_calls: calls of upstreams; `upstream_answers` and `upstream_failures` are the
            answers, and the calls that gave no complete one, by upstream.
        upstream_saved_s, saved_tokens: seconds of their time, and tokens, that hits saved.
        breakers: state by operation: 0 closed, 1 half-open, 2 open; `upstreams` likewise, by name.
        store_entries, store_bytes: None where the store keeps no count.
    """

    at: float
    requests: dict[str, int]
    durations: dict[str, list[int]]
    texts: int
    hits: dict[str, int]
    inferred: int
    inference_s: float
    spared_s: float
    upstream_calls: int
    upstream_answers: dict[str, int]
    upstream_failures: dict[str, int]
    upstream_saved_s: float
    saved_tokens: int
    breakers: dict[str, int]
    upstreams: dict[str, int]
    shed: int
    dropped: int
    store_errors: int
    queue: int
    writeback: int
    hot_entries: int
    hot_bytes: int
    store_entries: int | None
    store_bytes: int | None
    purges_heard: bool
    memory_bytes: int
    workers: int


class Recent(msgspec.Struct, frozen=True):
    """The samples, oldest first, with the meaning of their fields."""

    every_s: float
    bounds_s: tuple[float, ...]
    samples: list[Figures]


class History:
    """The samples of the last ten minutes."""

    def __init__(self) -> None:
        # By time, and as JSON: all take 0.4 MB, and 2.3 as objects (tracemalloc).
        self._samples: deque[tuple[float, msgspec.Raw]] = deque(maxlen=_SAMPLES)

    def add(self, figures: Figures) -> None:
        """Add a sample; the oldest is dropped."""
        self._samples.append((figures.at, msgspec.Raw(msgspec.json.encode(figures))))

    def since(self, at: float) -> bytes:
        """Return the samples taken after a time (Unix, seconds), as JSON."""
        samples = cast(
            list[Figures], [packed for taken_at, packed in self._samples if taken_at > at]
        )
        return msgspec.json.encode(Recent(SAMPLE_EVERY_S, LATENCY_BUCKETS, samples))


Answer = Callable[[bytes], bytes]
"""Answers an operator's question for one worker (`admin.workers`)."""


class MetricsSource(Protocol):
    """A source of the metrics of all workers, or of a single process, and of what they answer.

    Attributes:
        answer: answers for this process; set before the first question.
    """

    answer: Answer

    async def exposition(self, text_format: TextFormat) -> bytes:
        """Return all metrics in a text format."""

    async def recent(self, since: float) -> bytes:
        """Return the samples taken after a time (Unix, seconds), as JSON (`Recent`)."""

    async def families(self, names: Collection[str]) -> list[Family]:
        """Return the samples of these names."""

    async def ask_all(self, question: bytes) -> list[bytes]:
        """Return the answer of every worker that answers in time."""


class OwnMetrics:
    """The `MetricsSource` of a process that has no supervisor; belongs to one event loop."""

    answer: Answer

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._history = History()
        self._sampling: asyncio.Task[None] | None = None

    async def exposition(self, text_format: TextFormat) -> bytes:
        """See `MetricsSource`."""
        self._count_busiest()
        return await expose(self._metrics.registry, text_format)

    async def recent(self, since: float) -> bytes:
        """See `MetricsSource`."""
        return self._history.since(since)

    async def families(self, names: Collection[str]) -> list[Family]:
        """See `MetricsSource`."""
        self._count_busiest()
        wanted = self._metrics.registry.restricted_registry(names)
        return await take_snapshot_in_turns(wanted, self._metrics.merges)

    async def ask_all(self, question: bytes) -> list[bytes]:
        """See `MetricsSource`."""
        return [self.answer(question)]

    def start(self) -> None:
        """Start taking samples."""
        self._sampling = asyncio.create_task(self._sample(), name="live-samples")

    def stop(self) -> None:
        """Stop taking samples."""
        if self._sampling is not None:
            self._sampling.cancel()

    def _count_busiest(self) -> None:
        self._metrics.busiest.add(self._metrics.tallies.drain())

    async def _sample(self) -> None:
        while True:
            # Only the metrics that a sample needs are collected.
            families = await self.families(FIGURES)
            self._history.add(read_figures(families, time.time()))
            await asyncio.sleep(SAMPLE_EVERY_S)


def read_figures(families: Iterable[Family], at: float) -> Figures:
    """Extract a sample from all metrics."""
    found = _Found(families)
    return Figures(
        at=at,
        requests=found.by("status", "requests_total"),
        durations=found.durations(),
        texts=int(found.sum("lookups_total", tier="hot")),
        hits=found.by("tier", "lookups_total", result="hit"),
        inferred=int(found.sum("batch_texts_sum")),
        inference_s=round(found.sum("inference_duration_seconds_sum"), 4),
        spared_s=round(found.spared_s(), 4),
        upstream_calls=int(
            found.sum("upstream_responses_total") + found.sum("upstream_errors_total")
        ),
        upstream_answers=found.by("upstream", "upstream_responses_total"),
        upstream_failures=found.by("upstream", "upstream_errors_total"),
        upstream_saved_s=round(found.sum("saved_seconds_total"), 4),
        saved_tokens=int(found.sum("saved_tokens_total")),
        breakers=found.by("op", "store_breaker_state"),
        upstreams=found.by("upstream", "upstream_breaker_state"),
        shed=int(found.sum("shed_total")),
        dropped=int(
            found.sum("writeback_dropped_total")
            - found.sum("writeback_dropped_total", reason="purged")
        ),
        store_errors=int(found.sum("store_errors_total")),
        queue=int(found.sum("queue_depth")),
        writeback=int(found.sum("writeback_queue_entries")),
        hot_entries=int(found.sum("hot_entries")),
        hot_bytes=int(found.sum("hot_bytes")),
        store_entries=_if_known(found.sum("store_entries")),
        store_bytes=_if_known(found.sum("store_bytes")),
        purges_heard=found.sum("purges_heard") == 1,
        memory_bytes=int(sum(one.value for one in found.samples["process_resident_memory_bytes"])),
        workers=int(found.sum("workers")) or 1,
    )


class _Found:
    """The needed samples, by name."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        for family in families:
            for sample in family.samples:
                if sample.name in FIGURES:
                    self.samples[sample.name].append(sample)

    def _of(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        for sample in self.samples[f"cacheproxy_{name}"]:
            if labels.items() <= sample.labels.items():
                yield sample

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that carry these labels."""
        return sum(sample.value for sample in self._of(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, int]:
        """Return the same sum for each value of another label."""
        sums: dict[str, int] = defaultdict(int)
        for sample in self._of(name, labels):
            sums[sample.labels[label]] += int(sample.value)
        return dict(sums)

    def spared_s(self) -> float:
        """Return the inference time that hits have saved, by each model's mean, seconds."""
        hits = self.by("model", "lookups_total", result="hit")
        texts = self.by("model", "batch_texts_sum")
        return sum(
            hits.get(model, 0) * self.sum("inference_duration_seconds_sum", model=model) / count
            for model, count in texts.items()
            if count
        )

    def durations(self) -> dict[str, list[int]]:
        """Return the count of each bucket by outcome; Prometheus reports cumulative counts."""
        cumulated: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for sample in self._of("request_duration_seconds_bucket", {}):
            cumulated[sample.labels["outcome"]][float(sample.labels["le"])] += sample.value
        return {
            outcome: [
                int(upper - lower)
                for lower, upper in pairwise((0.0, *(counts[bound] for bound in sorted(counts))))
            ]
            for outcome, counts in cumulated.items()
        }


def _if_known(value: float) -> int | None:
    return None if math.isnan(value) else int(value)
