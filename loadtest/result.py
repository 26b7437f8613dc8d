"""What a run has found: figures by phase and stream, and latencies by tier and window of time.

Latencies are HDR histograms (microseconds, three digits), one for each tier and window, so that
results can be compared and drawn later without the single requests.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram

from cacheproxy.errors import ConfigError
from loadtest.fleet import Outline
from loadtest.plan import MIXED
from loadtest.samples import TEXT_TIERS, TIERS, Samples
from loadtest.scenario import KINDS, Phase
from loadtest.scrape import Moment
from loadtest.truth import Count

_LONGEST_US = 3_600_000_000
_DIGITS = 3
_MOST_WINDOWS = 120

REFUSED = "refused"
"""Stands beside the tiers: answers 429 and 503."""

_REFUSALS = (429, 503)


class Latencies(msgspec.Struct, frozen=True):
    """One tier's latencies.

    Attributes:
        tier: one of `TIERS`, or `REFUSED`.
        windows: an encoded HDR histogram for each window of time.
    """

    tier: str
    windows: list[str]


class StreamResult(msgspec.Struct, frozen=True):
    """What one stream came to.

    Attributes:
        name: the stream's.
        figures: by name; milliseconds, shares and numbers a second, as the names say.
        statuses: answers by HTTP status; 0 where none came, 1 where a streamed one broke off.
        expected: texts of each kind that were to be sent.
        texts: answered texts by tier.
        kinds: single-text answers by kind, and in it by tier.
        latencies: of answers by tier, from the moment at which they were to be sent.
    """

    name: str
    figures: dict[str, float]
    statuses: dict[str, int]
    expected: dict[str, int]
    texts: dict[str, int]
    kinds: dict[str, dict[str, int]]
    latencies: list[Latencies]


class PhaseResult(msgspec.Struct, frozen=True):
    """What one phase came to.

    Attributes:
        name: the phase's.
        seconds: for how long requests were sent.
        window_s: length of a window.
        streams: in the scenario's order.
        figures: of all streams, and of the server.
        server: its gauges over time.
        counts: the truth check; empty where the server has no metrics.
    """

    name: str
    seconds: float
    window_s: float
    streams: list[StreamResult]
    figures: dict[str, float]
    server: list[Moment]
    counts: list[Count]


class Kept(msgspec.Struct, frozen=True):
    """A promise and what was found: `value` is to be at most, or at least, `limit`."""

    promise: str
    value: float
    limit: float
    is_kept: bool


class Result(msgspec.Struct, frozen=True):
    """A whole run.

    Attributes:
        scenario: its name.
        about: what it is for.
        server: what was asked, in words.
        started_at: Unix time, seconds.
        cores: of the machine that sent.
        processes: that sent.
        seed: of all that was drawn.
        phases: in their order.
        promises: what the scenario promises.
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

    @property
    def differences(self) -> list[str]:
        """What the clients and the server disagree about, a line each."""
        return [
            f"{phase.name}: {count.what}: clients saw {count.client}, "
            f"the server counted {count.server}"
            for phase in self.phases
            for count in phase.counts
            if not count.agrees
        ]


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
    """Return a phase's result from every exchange of it."""
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
    return PhaseResult(phase.name, phase.seconds, window_s, streams, figures, server, counts)


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
    )


def _figures(outline: Outline, samples: Samples, phase: Phase) -> dict[str, float]:
    settled = samples[samples["due_s"] >= phase.settle_s]
    status = settled["status"]
    good, refused = settled[status == 200], settled[np.isin(status, _REFUSALS)]
    failed = len(settled) - len(good) - len(refused)
    # A server that falls behind goes on answering after the last request was sent.
    answered_s = samples["due_s"] + samples["whole_us"] / 1e6
    seconds = max(phase.seconds, float(answered_s.max(initial=0))) - phase.settle_s
    answered = int(((samples["status"] == 200) & (answered_s >= phase.settle_s)).sum())
    texts = {tier: int(good[tier].astype(np.int64).sum()) for tier in TEXT_TIERS}
    told = sum(texts.values())
    figures = {
        "offered_per_s": len(settled) / (phase.seconds - phase.settle_s),
        "answered_per_s": answered / seconds,
        "texts_per_s": answered * outline.texts / seconds,
        "refused_share": len(refused) / max(len(settled), 1),
        "failed_share": failed / max(len(settled), 1),
        "hit_share": (told - texts["miss"]) / told if told else 0.0,
        **_quantiles("", good["whole_us"]),
    }
    if outline.route == "chat":
        figures |= _quantiles("first_", good["first_us"])
    if len(refused):
        figures |= _quantiles("refusal_", refused["whole_us"])
        figures["refusals_without_retry_after"] = float((refused["retry_after"] == 0).sum())
    return figures


def _expected(outline: Outline, samples: Samples) -> dict[str, int]:
    if outline.is_open:
        counts = outline.expected
    else:  # a closed loop sends as much as it gets to
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
    """Return an empty histogram of the kind that results are made of: microseconds."""
    return HdrHistogram(1, _LONGEST_US, _DIGITS)
