from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from cacheproxy.telemetry.loop_counters import LoopCounter, LoopHistogram

BOUNDS = (0.001, 0.5, 1.0, 60.0)


def test_a_scrape_cannot_tell_them_from_prometheus_clients_own():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters = (
        LoopCounter("asked", "Questions", ("who", "how"), ours),
        Counter("asked", "Questions", ("who", "how"), registry=theirs),
    )
    histograms = (
        LoopHistogram("took_seconds", "Time", ("who",), BOUNDS, ours),
        Histogram("took_seconds", "Time", ("who",), buckets=BOUNDS, registry=theirs),
    )

    for counter in counters:
        counter.labels("a", 'with "quotes"\n').inc()
        counter.labels("b", "").inc(41)
        counter.labels("b", "").inc()
    for histogram in histograms:
        for value in (0.0, 0.001, 0.0011, 0.5, 0.7, 1.0, 59.0, 60.0, 61.0, 1e9):
            histogram.labels("a").observe(value)

    assert exposition_of(ours) == exposition_of(theirs)
    assert 'took_seconds_bucket{le="1.0",who="a"} 6.0' in exposition_of(ours)


def exposition_of(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]
