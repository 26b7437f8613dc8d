"""Searches a server's limit: steps up until a promise breaks, then narrows the range.

Each trial is a phase of its own, with its own arrivals and its share of unseen texts. It starts
when every request of the one before is answered.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from cacheproxy.errors import ConfigError

from ..client.fleet import Assignment, Fleet
from ..errors import LoadTestError, NotAnswered
from ..results.promises import check_promises
from ..results.result import Limit, PhaseResult, Result, Trial
from ..run import describe_run, run_phase, warm_up
from ..servers.served import Served
from ..traffic.scenario import Promise, Scenario, Stream
from .belief import Belief, Estimate

_LEAST_SHARE = 0.1
"""The limit is searched down to this share of the rate of the first trial."""


@dataclass(frozen=True)
class Search:
    """How a limit is searched.

    Attributes:
        at_most: limits by the names of figures, which hold for every stream.
        at_least: the same, from below.
        start_per_s: rate of the first trial, requests a second of all streams together.
        step: factor from one trial to the next, until one breaks a promise.
        most_per_s: rate at which stepping up ends.
        precision: width of the interval at which the search ends, as a share of the limit.
        most_trials: number of trials after which it ends in any case.
    """

    at_most: dict[str, float]
    at_least: dict[str, float]
    start_per_s: float
    step: float
    most_per_s: float
    precision: float
    most_trials: int


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

        limit = _search(search, try_rate)
    return msgspec.structs.replace(
        describe_run(name, assignment, processes, served, started_at),
        phases=phases,
        limit=msgspec.structs.replace(limit, trials=trials),
    )


def _search(search: Search, try_rate: Callable[[float], bool]) -> Limit:
    """Return the limit without its trials.

    Raises:
        LoadTestError: promises break at the lowest rate, too.
    """
    least_per_s = search.start_per_s * _LEAST_SHARE
    belief = Belief(least_per_s / search.step, search.most_per_s * search.step)
    count = 0

    def breaks(per_s: float) -> bool:
        nonlocal count
        broke = try_rate(per_s)
        belief.learn(per_s, broke=broke)
        count += 1
        return broke

    per_s = search.start_per_s
    if breaks(per_s):
        while breaks(per_s := per_s / search.step**2):
            if per_s < least_per_s or count >= search.most_trials:
                raise LoadTestError(f"promises break even at {per_s:.4g} requests/s")
    else:
        while count < search.most_trials and per_s < search.most_per_s:
            per_s = min(per_s * search.step, search.most_per_s)
            if breaks(per_s):
                break
        else:
            return Limit(None, per_s, None, search.precision)
    found = belief.estimate()
    while found.width > search.precision and count < search.most_trials:
        breaks(found.per_s)
        found = belief.estimate()
    return _limit(found, search)


def _limit(found: Estimate, search: Search) -> Limit:
    return Limit(found.per_s, found.low_per_s, found.high_per_s, search.precision)


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
