"""Searches a server's limit by trials of one phase of a scenario at different rates.

Each trial is a phase of its own, with its own arrivals and its share of unseen texts. It starts
when every request of the one before is answered.
"""

import time
from collections.abc import Callable

import msgspec

from cacheproxy.errors import ConfigError

from ..client.fleet import Assignment, Fleet
from ..errors import NotAnswered
from ..results.promises import check_promises
from ..results.result import PhaseResult, Result, Trial
from ..run import describe_run, run_phase, warm_up
from ..servers.served import Served
from ..traffic.scenario import Promise, Scenario, Stream
from .search import Search, search_limit


def search_scenario(
    scenario: Scenario, phase_name: str | None, seconds: float, trials: int
) -> Scenario:
    """Return a scenario of `trials` phases whose streams are shares of a rate given later.

    Raises:
        ConfigError: there is no such phase, or one of its streams has no steady rate.
    """
    phase = next((one for one in scenario.phases if phase_name in (None, one.name)), None)
    if phase is None:
        raise ConfigError(f"the scenario has no phase {phase_name}")
    total = sum(stream.per_s or 0.0 for stream in phase.streams)

    def as_share(stream: Stream) -> Stream:
        if stream.clients:
            return stream
        if stream.per_s is None:
            raise ConfigError(f"{phase.name}: {stream.name}: find-limit needs a rate, per_s")
        return msgspec.structs.replace(stream, per_s=None, per_capacity=stream.per_s / total)

    if not total:
        raise ConfigError(f"{phase.name}: find-limit needs a stream with a rate, per_s")
    trial = msgspec.structs.replace(
        phase,
        seconds=seconds,
        settle_s=min(phase.settle_s, seconds / 5),
        streams=tuple(map(as_share, phase.streams)),
        restart=False,
        finds_capacity=False,
        may_refuse=True,
        fault=None,
    )
    return msgspec.structs.replace(scenario, phases=(trial,) * trials, promises=())


def find_limit(
    name: str,
    assignment: Assignment,
    processes: int,
    served: Served | None,
    search: Search,
    on_trial: Callable[[Trial], None],
) -> Result:
    """Return the result of all trials, with the limit.

    Raises:
        CacheproxyError: the search cannot be run; the message says why.
        NotAnswered: no request of the first trial was answered with 200.
    """
    started_at = time.time()
    phases: list[PhaseResult] = []
    trials: list[Trial] = []
    with Fleet(assignment, processes) as fleet:
        warm_up(fleet, assignment)

        def try_rate(per_s: float) -> bool:
            number = len(trials)
            phase = assignment.scenario.phases[number]
            label = msgspec.structs.replace(phase, name=f"trial {number + 1}, {per_s:.4g}/s")
            found = run_phase(fleet, number, label, per_s, assignment)
            if not trials and not any(stream.statuses.get("200") for stream in found.streams):
                raise NotAnswered(
                    f"{label.name}: {'; '.join(found.failures) or 'nothing was sent'}"
                )
            phases.append(found)
            trials.append(Trial(found.name, per_s, _broken(found, search)))
            on_trial(trials[-1])
            return bool(trials[-1].broken)

        limit = search_limit(search, try_rate)
    return msgspec.structs.replace(
        describe_run(name, assignment, processes, served, started_at),
        phases=phases,
        limit=msgspec.structs.replace(limit, trials=trials),
    )


def _broken(found: PhaseResult, search: Search) -> list[str]:
    """Return the limits that a trial broke, in words."""
    promises = [
        *(Promise(found.name, figure, at_most=most) for figure, most in search.at_most.items()),
        *(Promise(found.name, figure, at_least=least) for figure, least in search.at_least.items()),
    ]
    of_streams = [
        msgspec.structs.replace(promise, stream=stream.name)
        for promise in promises
        for stream in found.streams
    ]
    kept = check_promises(of_streams, [found])
    return [f"{one.stream}: {one.figure} {one.value:.4g}" for one in kept if not one.is_kept]
