"""Renders a run for the terminal: what was sent, how it was answered, and what is wrong with it."""

from collections.abc import Iterator

from .result import PhaseResult, Result, StreamResult

MOST_LAG_MS = 1.0
"""If requests leave later than this (p99), latencies contain delays of the load tester itself."""


def as_text(result: Result) -> str:
    """Return the summary."""
    return "\n".join(_lines(result))


def describe_sender(result: Result) -> str:
    """Return which server was called, and from what."""
    processes = f"{result.processes} process" + "es" * (result.processes > 1)
    return (
        f"Server: {result.server}. Sent by {processes} on a machine with {result.cores} cores, "
        f"seed {result.seed}."
    )


def describe_limit(result: Result) -> str:
    """Return what `find-limit` found, in a line; "" for a run."""
    limit = result.limit
    if limit is None:
        return ""
    if limit.per_s is None or limit.high_per_s is None:
        return f"No limit up to {limit.low_per_s:.4g} requests/s: every trial kept its promises"
    said = (
        f"Limit: {limit.per_s:.4g} requests/s, 95 % interval {limit.low_per_s:.4g} to "
        f"{limit.high_per_s:.4g}, {len(limit.trials)} trials"
    )
    if not limit.is_precise:
        said += f"; the interval is wider than {limit.precision:.0%}, allow more --trials"
    return said


def warnings_of(result: Result) -> list[str]:
    """Return what a reader of the figures has to know, a line each."""
    return [
        f"{phase.name}: requests left up to {phase.figures['lag_p99_ms']:.2f} ms late (p99). Above "
        f"{MOST_LAG_MS:g} ms latencies contain delays of the load tester itself: use more "
        "--processes, fewer requests, or a machine with a free core"
        for phase in result.phases
        if phase.figures["lag_p99_ms"] > MOST_LAG_MS
    ]


def _lines(result: Result) -> Iterator[str]:
    yield f"{result.scenario}: {result.about}"
    yield describe_sender(result)
    for phase in result.phases:
        yield ""
        yield from _phase(phase)
    yield ""
    for kept in result.promises:
        word = "kept  " if kept.is_kept else "BROKEN"
        yield f"{word} {kept.promise}: {kept.value:.4g} (limit {kept.limit:.4g})"
    for warning in warnings_of(result):
        yield f"WARNING {warning}"
    for difference in result.differences:
        yield f"DIFFERENCE {difference}"
    for failure in result.failures:
        yield f"FAILED {failure}"
    counts = sum(len(phase.counts) for phase in result.phases)
    if not counts:
        yield "Truth check: skipped, because the server has no metrics of cacheproxy"
    elif not result.differences:
        yield f"Truth check: clients and server agree in all {counts} counts"


def _phase(phase: PhaseResult) -> Iterator[str]:
    figures = phase.figures
    yield f"{phase.name}, {phase.seconds:g} s"
    about = [f"requests left up to {figures['lag_p99_ms']:.2f} ms late (p99)"]
    if "memory_mb" in figures:
        about.append(f"server memory {figures['memory_mb']:.0f} MB")
    if "memory_mb_per_h" in figures:
        about.append(_describe_slopes(figures))
    if "ready_s" in figures:
        about.append(f"ready {figures['ready_s']:.1f} s after the restart")
    yield f"  {', '.join(about)}"
    yield (
        f"  {'stream':16}{'offered/s':>10}{'answered/s':>11}{'p50 ms':>9}{'p90 ms':>9}"
        f"{'p99 ms':>9}{'hits':>7}{'refused':>9}{'failed':>8}"
    )
    for stream in phase.streams:
        yield from _stream(stream)


def _describe_slopes(figures: dict[str, float]) -> str:
    return (
        f"over the whole run, in the {figures['steady_processes']:.0f} processes that lived "
        f"throughout: memory {figures['memory_mb_per_h']:+.2f} MB an hour "
        f"(last {figures['steady_memory_mb']:.0f} MB), handles {figures['handles_grown']:+.0f}, "
        f"threads {figures['threads_grown']:+.0f}; store {figures['store_mb']:.1f} MB "
        f"({figures['store_mb_grown']:+.2f}), {figures.get('store_entries', 0):.0f} entries; "
        f"evidence {figures.get('evidence_labels', 0):.0f} labels"
    )


def _stream(stream: StreamResult) -> Iterator[str]:
    figures = stream.figures
    yield (
        f"  {stream.name:16}{figures['offered_per_s']:10.1f}{figures['answered_per_s']:11.1f}"
        f"{figures['p50_ms']:9.2f}{figures['p90_ms']:9.2f}{figures['p99_ms']:9.2f}"
        f"{figures['hit_share']:7.1%}{figures['refused_share']:9.1%}{figures['failed_share']:8.1%}"
    )
    if "first_p50_ms" in figures:
        yield (
            f"    first byte: p50 {figures['first_p50_ms']:.2f} ms, "
            f"p99 {figures['first_p99_ms']:.2f} ms"
        )
    if "first_token_p50_ms" in figures:
        yield (
            f"    first token: p50 {figures['first_token_p50_ms']:.2f} ms, "
            f"p99 {figures['first_token_p99_ms']:.2f} ms; "
            f"per token: p50 {figures['per_token_p50_ms']:.2f} ms, "
            f"p99 {figures['per_token_p99_ms']:.2f} ms; "
            f"{figures['tokens_per_s']:.1f} tokens/s"
        )
    if "refusal_p99_ms" in figures:
        yield (
            f"    refusals: p99 {figures['refusal_p99_ms']:.2f} ms, "
            f"{figures['refusals_without_retry_after']:.0f} without Retry-After"
        )
    for kind, expected in stream.expected.items():
        tiers = stream.kinds.get(kind, {})
        got = ", ".join(f"{tier} {count}" for tier, count in tiers.items())
        yield f"    {kind}: {expected} sent" + (f"; answered from: {got}" if got else "")
    if not stream.kinds:
        yield "    texts by tier: " + ", ".join(f"{tier} {n}" for tier, n in stream.texts.items())
