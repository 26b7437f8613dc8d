"""How long a request spends in each stage of its way, for the metrics and for `Server-Timing`."""

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
        """Return a `with` block whose seconds are observed, and noted in `stages_s`."""
        return Timed(name, self._durations[name], stages_s)


class Timed:
    """A `with` block that is timed; a generator in its place takes three times as long."""

    __slots__ = ("_duration", "_name", "_stages_s", "_started")

    def __init__(self, name: str, duration: LoopObservations, stages_s: dict[str, float]) -> None:
        self._name = name
        self._duration = duration
        self._stages_s = stages_s

    def __enter__(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        """Stop it, whatever was raised."""
        ended = time.perf_counter()
        self._stages_s[self._name] = duration_s = ended - self._started
        self._duration.observe(duration_s)
        if visit := current_visit():
            visit.stage_ended(self._name, self._started, ended)
