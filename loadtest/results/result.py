"""The result of a run: figures by phase and stream, and latencies by tier and time window.

Latencies are HDR histograms (microseconds, three significant digits), one for each tier and window,
so that results can be compared and plotted later without the single requests.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram

from cacheproxy.errors import ConfigError

from ..client.fleet import Outline
from ..client.samples import TEXT_TIERS, TIERS, Samples, describe_statuses
from ..soak.vitals import Vital
from ..traffic.plan import MIXED
from ..traffic.scenario import KINDS, Phase
from .scrape import Moment
from .truth import Count

_LONGEST_US = 3_600_000_000
_DIGITS = 3
_MOST_WINDOWS = 120

REFUSED = "refused"
"""Stands in place of a tier for answers with status 429 or 503."""

_REFUSALS = (429, 503)


class Latencies(msgspec.Struct, frozen=True):
    """The latencies of one tier.

    Attributes:
        tier: one of `TIERS`, or `REFUSED`.
        windows: an encoded HDR histogram for each time window.
    """

    tier: str
    windows: list[str]


class StreamResult(msgspec.Struct, frozen=True):
    """The result of one stream.

    Attributes:
        name: of the stream.
        figures: by name; the names say the units.
        statuses: number of requests by HTTP status; 0 is no answer, 1 a stream cut short.
        expected: texts of each kind that were planned.
        texts: answered texts by tier.
        kinds: answers to requests of one text, by kind and then by tier.
        latencies: of answers by tier, counted from when the request was due.
        clients: number of clients of a closed loop, or 0.
    """

    name: str
    figures: dict[str, float]
    statuses: dict[str, int]
    expected: dict[str, int]
    texts: dict[str, int]
    kinds: dict[str, dict[str, int]]
    latencies: list[Latencies]
    clients: int = 0


class PhaseResult(msgspec.Struct, frozen=True):
    """The result of one phase.

    Attributes:
        name: of the phase.
        seconds: how long requests were sent.
        window_s: length of a time window.
        streams: in the order of the scenario.
        figures: of all streams together, and of the server.
        server: gauges of the server over time.
        counts: the truth check; empty if the server has no metrics.
        failures: a line for each stream with requests that were not answered as they should be.
        started_at: Unix time at which sending began, seconds; 0 if it is not known.
    """

    name: str
    seconds: float
    window_s: float
    streams: list[StreamResult]
    figures: dict[str, float]
    server: list[Moment]
    counts: list[Count]
    failures: list[str]
    started_at: float = 0.0


class Kept(msgspec.Struct, frozen=True):
    """A promise in words, the figure that was found in a phase, and the limit for it.

    `stream` is "" for a promise that names none.
    """

    promise: str
    value: float
    limit: float
    is_kept: bool
    phase: str = ""
    stream: str = ""
    figure: str = ""


class Trial(msgspec.Struct, frozen=True):
    """One trial of a search: its phase, requests a second, and what it broke, in words."""

    phase: str
    per_s: float
    broken: list[str]


class Limit(msgspec.Struct, frozen=True):
    """The rate at which every second trial breaks a promise, with its 95 % credible interval.

    Attributes:
        per_s: requests a second, or None if no trial broke a promise.
        low_per_s: lower end of the interval, or the highest rate that was tried.
        high_per_s: upper end of the interval, or None.
        precision: width of the interval that was asked for, as a share of the limit.
        trials: in their order.
    """

    per_s: float | None
    low_per_s: float
    high_per_s: float | None
    precision: float
    trials: list[Trial] = []

    @property
    def is_precise(self) -> bool:
        """Whether the interval is as narrow as was asked for."""
        if self.per_s is None or self.high_per_s is None:
            return False
        return (self.high_per_s - self.low_per_s) / self.per_s <= self.precision


class Result(msgspec.Struct, frozen=True):
    """The result of a whole run.

    Attributes:
        scenario: its name.
        about: its purpose.
        server: which server was called, in words.
        started_at: Unix time, seconds.
        cores: number of cores of the sending machine.
        processes: number of sending processes.
        seed: of every random choice.
        phases: in their order.
        promises: of the scenario, with what was found.
        limit: that `find-limit` found, or None for a run.
        vitals: of the server's processes over the whole run, if it was started for it.
    """

    scenario: str
    about: str
    server: str
    started_at: float
    cores: int
    processes: int
    seed: int
    phases: list[PhaseResult]
    promises: list[Kept]
    limit: Limit | None = None
    vitals: list[Vital] = []

    @property
    def differences(self) -> list[str]:
        """Counts in which clients and server differ, a line each."""
        return [
            f"{phase.name}: {count.what}: the clients saw {count.client}, "
            f"the server counted {count.server}"
            for phase in self.phases
            for count in phase.counts
            if not count.agrees
        ]

    @property
    def failures(self) -> list[str]:
        """Requests that were not answered as they should be, a line for each stream."""
        return [f"{phase.name}: {failure}" for phase in self.phases for failure in phase.failures]


def read_result(path: Path) -> Result:
    """Return a result that was written with `run --json`; raises `ConfigError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path}: {error}") from None


def make_phase(
    phase: Phase,
    outlines: Sequence[Outline],
    samples: Samples,
    server: list[Moment],
    counts: list[Count],
) -> PhaseResult:
    """Return the result of a phase from all of its exchanges."""
    window_s = max(1.0, phase.seconds / _MOST_WINDOWS)
    streams = [
        _make_stream(outline, samples[samples["stream"] == number], phase, window_s)
        for number, outline in enumerate(outlines)
    ]
    lags = samples["lag_us"][samples["due_s"] >= phase.settle_s]
    figures = {
        "lag_p50_ms": _quantile_ms(lags, 0.5),
        "lag_p99_ms": _quantile_ms(lags, 0.99),
        "requests": float(len(samples)),
    }
    memory = [
        moment.memory_bytes
        for moment in server
        if moment.memory_bytes and moment.at_s >= phase.settle_s
    ]
    if memory:
        figures["memory_mb"] = max(memory) / 1e6
        figures["memory_growth"] = memory[-1] / memory[0]
    failures = [
        f"{outline.name}: {failed}"
        for number, outline in enumerate(outlines)
        if (failed := _describe_failed(samples[samples["stream"] == number], phase))
    ]
    return PhaseResult(
        phase.name, phase.seconds, window_s, streams, figures, server, counts, failures
    )


def _describe_failed(samples: Samples, phase: Phase) -> str:
    if phase.may_fail:
        return ""
    allowed = (200, *_REFUSALS) if phase.may_refuse else (200,)
    return describe_statuses(samples["status"], allowed=allowed)


def _make_stream(outline: Outline, samples: Samples, phase: Phase, window_s: float) -> StreamResult:
    good = samples[samples["status"] == 200]
    windows = int(np.ceil(phase.seconds / window_s))
    latencies = [
        Latencies(tier, _windows(part, window_s, windows))
        for tier, part in (
            *((tier, good[good["tier"] == number]) for number, tier in enumerate(TIERS)),
            (REFUSED, samples[np.isin(samples["status"], _REFUSALS)]),
        )
        if len(part)
    ]
    statuses = Counter(samples["status"].tolist())
    texts = {tier: int(good[tier].astype(np.int64).sum()) for tier in TEXT_TIERS}
    return StreamResult(
        outline.name,
        _figures(outline, samples, phase),
        {str(code): count for code, count in sorted(statuses.items())},
        _expected(outline, samples),
        {tier: count for tier, count in texts.items() if count},
        _by_kind(outline, good),
        latencies,
        outline.clients,
    )


def _figures(outline: Outline, samples: Samples, phase: Phase) -> dict[str, float]:
    settled = samples[samples["due_s"] >= phase.settle_s]
    status = settled["status"]
    good, refused = settled[status == 200], settled[np.isin(status, _REFUSALS)]
    failed = len(settled) - len(good) - len(refused)
    # A server that has fallen behind still answers after the last request was sent.
    answered_s = samples["due_s"] + samples["whole_us"] / 1e6
    seconds = max(phase.seconds, float(answered_s.max(initial=0))) - phase.settle_s
    answered = int(((samples["status"] == 200) & (answered_s >= phase.settle_s)).sum())
    texts = {tier: int(good[tier].astype(np.int64).sum()) for tier in TEXT_TIERS}
    told = sum(texts.values())
    offered_per_s = len(settled) / (phase.seconds - phase.settle_s)
    figures = {
        "offered_per_s": offered_per_s,
        "answered_per_s": answered / seconds,
        "answered_share": answered / seconds / offered_per_s if offered_per_s else 1.0,
        "texts_per_s": answered * outline.texts / seconds,
        "refused_share": len(refused) / max(len(settled), 1),
        "failed_share": failed / max(len(settled), 1),
        "hit_share": (told - texts["miss"]) / told if told else 0.0,
        **_quantiles("", good["whole_us"]),
    }
    if outline.route == "chat":
        figures |= _quantiles("first_", good["first_us"])
        figures |= _token_figures(good, seconds)
    if len(refused):
        figures |= _quantiles("refusal_", refused["whole_us"])
        figures["refusals_without_retry_after"] = float((refused["retry_after"] == 0).sum())
    return figures


def _token_figures(good: Samples, seconds: float) -> dict[str, float]:
    """Return when the first token came, and the time per token after it; {} without streams."""
    told = good[good["tokens"] > 0]
    if not len(told):
        return {}
    several = told[told["tokens"] > 1]
    whole_us = several["last_token_us"].astype(np.float64) - several["first_token_us"]
    return {
        **_quantiles("first_token_", told["first_token_us"]),
        **_quantiles("per_token_", whole_us / (several["tokens"] - 1)),
        "tokens_per_s": float(told["tokens"].astype(np.int64).sum()) / seconds,
    }


def _expected(outline: Outline, samples: Samples) -> dict[str, int]:
    if outline.is_open:
        counts = outline.expected
    else:  # a closed loop sends as many as it has time for
        sent = np.frombuffer(outline.kinds, np.uint8)[samples["index"]]
        counts = tuple(outline.texts * int((sent == kind).sum()) for kind in range(len(KINDS)))
    return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}


def _by_kind(outline: Outline, good: Samples) -> dict[str, dict[str, int]]:
    kinds = np.frombuffer(outline.kinds, np.uint8)[good["index"]]
    pairs = Counter(zip(kinds.tolist(), good["tier"].tolist(), strict=True))
    found: dict[str, dict[str, int]] = {}
    for (kind, tier), count in sorted(pairs.items()):
        if kind != MIXED:
            found.setdefault(KINDS[kind], {})[TIERS[tier]] = count
    return found


def _quantiles(prefix: str, values_us: Samples) -> dict[str, float]:
    return {
        f"{prefix}p50_ms": _quantile_ms(values_us, 0.5),
        f"{prefix}p90_ms": _quantile_ms(values_us, 0.9),
        f"{prefix}p99_ms": _quantile_ms(values_us, 0.99),
        f"{prefix}p999_ms": _quantile_ms(values_us, 0.999),
    }


def _quantile_ms(values_us: Samples, share: float) -> float:
    if not len(values_us):
        return 0.0
    return float(np.quantile(values_us, share, method="higher")) / 1000


def _windows(samples: Samples, window_s: float, windows: int) -> list[str]:
    number = np.minimum((samples["due_s"] / window_s).astype(np.int64), windows - 1)
    return [_encode(samples["whole_us"][number == window]) for window in range(windows)]


def _encode(values_us: Samples) -> str:
    histogram = make_histogram()
    for value, count in zip(*np.unique(values_us, return_counts=True), strict=True):
        histogram.record_value(max(int(value), 1), int(count))
    encoded: bytes = histogram.encode()
    return encoded.decode()


def make_histogram() -> HdrHistogram:
    """Return an empty histogram of microseconds, as results hold them."""
    return HdrHistogram(1, _LONGEST_US, _DIGITS)
