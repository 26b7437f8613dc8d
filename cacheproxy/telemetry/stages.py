"""Times each stage of a request, for the metrics and for `Server-Timing`."""

import time
from collections.abc import Sequence

from cacheproxy.telemetry.loop_counters import LoopObservations
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.request_trace import current_visit


class Stages:
    """The stages of one route."""

    def __init__(self, metrics: Metrics, names: Sequence[str]) -> None:
        self._durations = {name: metrics.stage_duration.labels(name) for name in names}

    def time(self, name: str, stages_s: dict[str, float]) -> "Timed":
        """Return a context manager that observes its seconds and adds them to `stages_s`."""
        return Timed(name, self._durations[name], stages_s)


class Timed:
    """A context manager that times its block, three times as fast as one made from a generator."""

    __slots__ = ("_duration", "_name", "_stages_s", "_started")

    def __init__(self, name: str, duration: LoopObservations, stages_s: dict[str, float]) -> None:
        self._name = name
        self._duration = duration
        self._stages_s = stages_s

    def __enter__(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        """Stop the clock, also after an exception."""
        ended = time.perf_counter()
        self._stages_s[self._name] = duration_s = ended - self._started
        self._duration.observe(duration_s)
        if visit := current_visit():
            visit.stages = (*visit.stages, (self._name, self._started, ended))
