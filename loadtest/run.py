"""Runs a scenario: its phases in order, each with the server's metrics and the truth check."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import msgspec
from tqdm import tqdm

from cacheproxy.errors import ConfigError

from .client.fleet import Assignment, Fleet, Progress
from .errors import LoadTestError
from .results.promises import check_promises
from .results.result import PhaseResult, Result, make_phase
from .results.scrape import Metrics, NoMetrics, Watch, settled_scrape
from .results.truth import check_truth
from .servers.served import Served
from .soak.faults import injected
from .soak.vitals import Monitor, slopes
from .traffic.scenario import KILLS, Phase

_TOLD = {
    "evidence_labels": "cacheproxy_semantic_shadow_labels_total",
    "store_entries": "cacheproxy_store_entries",
}
"""Figures of a phase that the server tells at its end, unless it does not know them."""


def run(name: str, assignment: Assignment, processes: int, served: Served | None) -> Result:
    """Run a scenario and return its result.

    Raises:
        CacheproxyError: the scenario cannot be run; the message says why.
    """
    scenario = assignment.scenario
    started_at = time.time()
    phases: list[PhaseResult] = []
    capacity_per_s: float | None = None
    seconds = sum(phase.seconds for phase in scenario.phases)
    monitor = None if served is None else Monitor(served.pid, served.store, seconds)
    with Fleet(assignment, processes) as fleet, monitor or nullcontext():
        warm_up(fleet, assignment)
        for number, phase in enumerate(scenario.phases):
            ready_s = _restart(phase, served) if phase.restart else None
            found = run_phase(fleet, number, phase, capacity_per_s, assignment, served)
            if ready_s is not None:
                found.figures["ready_s"] = ready_s
            if phase.finds_capacity:
                capacity_per_s = found.streams[0].figures["answered_per_s"]
            phases.append(found)
    vitals = [] if monitor is None else monitor.vitals
    if not any(phase.restart for phase in scenario.phases):
        phases[-1].figures.update(slopes(vitals))
    return msgspec.structs.replace(
        describe_run(name, assignment, processes, served, started_at),
        phases=phases,
        promises=check_promises(scenario.promises, phases),
        vitals=vitals,
    )


def describe_run(
    name: str, assignment: Assignment, processes: int, served: Served | None, started_at: float
) -> Result:
    """Return a result without its findings: which scenario ran, when, from where, on what."""
    scenario = assignment.scenario
    return Result(
        scenario=name,
        about=scenario.about,
        server=assignment.target.root if served is None else "a cacheproxy, started for this run",
        started_at=started_at,
        cores=len(os.sched_getaffinity(0)),
        processes=processes,
        seed=scenario.seed,
        phases=[],
        promises=[],
    )


def warm_up(fleet: Fleet, assignment: Assignment) -> None:
    """Ask for the scenario's known texts; raises `LoadTestError`."""
    if assignment.scenario.known_texts and assignment.recording is None:
        with _bar("known texts", None) as progress:
            fleet.warm_up(progress)


def _restart(phase: Phase, served: Served | None) -> float:
    if served is None:
        raise ConfigError(f"{phase.name}: this phase restarts the server, which needs --serve")
    return served.restart()


def run_phase(
    fleet: Fleet,
    number: int,
    phase: Phase,
    capacity_per_s: float | None,
    assignment: Assignment,
    served: Served | None = None,
) -> PhaseResult:
    """Run the phase with this number, which `phase` may give another name; return its result.

    `served` is what a fault is injected into.

    Raises:
        LoadTestError: a process failed, or the server's metrics are gone.
    """
    root = assignment.target.root
    outlines = fleet.plan(number, capacity_per_s)
    before = _scrape(root)
    watch = Watch(root)
    with (
        watch if before is not None else nullcontext(),
        injected(phase, served),
        _bar(phase.name, phase.seconds) as bar,
    ):
        started_at = time.time()
        samples = fleet.run(bar)
    counts = []
    told: dict[str, float] = {}
    if before is not None:
        try:
            after = settled_scrape(root)
        except NoMetrics as reason:
            raise LoadTestError(f"{phase.name}: the metrics are gone: {reason}") from None
        was_killed = phase.fault in KILLS
        counts = check_truth(samples, outlines, before, after, was_killed=was_killed)
        values = {figure: after.value(name) for figure, name in _TOLD.items()}
        told = {figure: value for figure, value in values.items() if math.isfinite(value)}
    found = make_phase(phase, outlines, samples, watch.moments, counts)
    found.figures.update(told)
    return msgspec.structs.replace(found, started_at=started_at)


def _scrape(root: str) -> Metrics | None:
    try:
        return settled_scrape(root)
    except NoMetrics:
        return None


@contextmanager
def _bar(name: str, seconds: float | None) -> Iterator[Progress]:
    """Show how much of a phase has passed, and how many requests were sent and answered."""
    started = time.monotonic()
    bar = tqdm(total=seconds and round(seconds), desc=name, unit="s", leave=False)

    def show(sent: int, answered: int) -> None:
        done_s = round(time.monotonic() - started)
        bar.update(min(done_s, bar.total or done_s) - bar.n)
        bar.set_postfix_str(f"sent {sent}, answered {answered}")

    with bar:
        yield show
