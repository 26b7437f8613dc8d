"""A run in a terminal: what was sent and got, and what is wrong with it."""

from collections.abc import Iterator

from loadtest.result import PhaseResult, Result, StreamResult

MOST_LAG_MS = 1.0
"""Where the generator itself is later than this, at its 99th percentile, latencies are its own."""


def as_text(result: Result) -> str:
    """Return the summary."""
    return "\n".join(_lines(result))


def describe_sender(result: Result) -> str:
    """Return who has asked whom."""
    processes = f"{result.processes} process" + "es" * (result.processes > 1)
    return f"{result.server}; sent by {processes} on {result.cores} cores, seed {result.seed}"


def warnings_of(result: Result) -> list[str]:
    """Return what a reader of the figures has to know, a line each."""
    return [
        f"{phase.name}: the generator's own lag is {phase.figures['lag_p99_ms']:.2f} ms at p99: "
        f"above {MOST_LAG_MS:g} ms, latencies are partly its own (more --processes, fewer "
        "requests, or a machine with a free core)"
        for phase in result.phases
        if phase.figures["lag_p99_ms"] > MOST_LAG_MS
    ]


def _lines(result: Result) -> Iterator[str]:
    yield f"{result.scenario}: {result.about}"
    yield describe_sender(result)
    for phase in result.phases:
        yield from _phase(phase)
    if result.promises:
        yield ""
    for kept in result.promises:
        word = "kept  " if kept.is_kept else "BROKEN"
        yield f"{word} {kept.promise}: {kept.value:.4g} (limit {kept.limit:.4g})"
    yield ""
    for warning in warnings_of(result):
        yield f"WARNING {warning}"
    counts = sum(len(phase.counts) for phase in result.phases)
    for difference in result.differences:
        yield f"DIFFERENCE {difference}"
    if not counts:
        yield "truth check: the server has no metrics of cacheproxy's to compare with"
    elif not result.differences:
        yield f"truth check: clients and server agree in all {counts} counts"


def _phase(phase: PhaseResult) -> Iterator[str]:
    figures = phase.figures
    memory = f", server {figures['memory_mb']:.0f} MB" if "memory_mb" in figures else ""
    ready = f", ready after {figures['ready_s']:.1f} s" if "ready_s" in figures else ""
    yield ""
    yield (
        f"{phase.name}, {phase.seconds:g} s: generator's lag p99 {figures['lag_p99_ms']:.2f} ms"
        f"{memory}{ready}"
    )
    yield (
        f"  {'stream':16}{'offered/s':>10}{'answered/s':>11}{'p50 ms':>9}{'p90 ms':>9}"
        f"{'p99 ms':>9}{'hits':>7}{'refused':>9}{'failed':>8}"
    )
    for stream in phase.streams:
        yield from _stream(stream)


def _stream(stream: StreamResult) -> Iterator[str]:
    figures = stream.figures
    yield (
        f"  {stream.name:16}{figures['offered_per_s']:10.1f}{figures['answered_per_s']:11.1f}"
        f"{figures['p50_ms']:9.2f}{figures['p90_ms']:9.2f}{figures['p99_ms']:9.2f}"
        f"{figures['hit_share']:7.1%}{figures['refused_share']:9.1%}{figures['failed_share']:8.1%}"
    )
    if "first_p50_ms" in figures:
        yield (
            f"    first byte after {figures['first_p50_ms']:.2f} ms, "
            f"p99 {figures['first_p99_ms']:.2f} ms"
        )
    if "refusal_p99_ms" in figures:
        yield (
            f"    refused within {figures['refusal_p99_ms']:.2f} ms at p99, "
            f"{figures['refusals_without_retry_after']:.0f} of them without Retry-After"
        )
    for kind, expected in stream.expected.items():
        tiers = stream.kinds.get(kind, {})
        got = ", ".join(f"{tier} {count}" for tier, count in tiers.items())
        yield f"    {kind} {expected}" + (f": {got}" if got else "")
    if not stream.kinds:
        yield "    texts: " + ", ".join(f"{tier} {count}" for tier, count in stream.texts.items())
