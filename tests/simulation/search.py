"""Runs many seeds, and shrinks the plan of a seed that fails."""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from tests.simulation.bugs import BUGS
from tests.simulation.plan import Kind, Plan, make_plan
from tests.simulation.run import run

_SEEDS_AT_ONCE = 50


@dataclass
class Found:
    """What some seeds showed.

    Attributes:
        seeds: how many ran.
        failures: rule and message of the first rule that each failing seed broke.
        seen: how often what happened.
        digests: of each run, by seed.
    """

    seeds: int = 0
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    digests: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Found") -> None:
        """Take what others showed, too."""
        self.seeds += other.seeds
        self.failures |= other.failures
        self.seen += other.seen
        self.digests |= other.digests


def search(
    seeds: range, *, bug: int | None = None, without: str | None = None, kind: Kind | None = None
) -> Found:
    """Run seeds one after the other.

    Args:
        seeds: which.
        bug: one of `BUGS`, which is put back.
        without: a rule that is switched off.
        kind: skip all other worlds.
    """
    found = Found()
    with nullcontext() if bug is None else BUGS[bug]():
        for plan in map(make_plan, seeds):
            if kind is not None and plan.kind != kind:
                continue
            outcome = run(plan, without=without)
            found.seeds += 1
            found.seen += outcome.seen
            found.digests[plan.seed] = outcome.digest
            if outcome.broken:
                found.failures[plan.seed] = outcome.broken[0]
    return found


def search_on_all_cores(
    seeds: range, *, processes: int, bug: int | None, without: str | None
) -> Iterator[Found]:
    """Run seeds in several processes; yield what some of them showed, as it comes."""
    parts = [
        seeds[start : start + _SEEDS_AT_ONCE] for start in range(0, len(seeds), _SEEDS_AT_ONCE)
    ]
    if processes == 1:
        yield from (search(part, bug=bug, without=without) for part in parts)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(partial(search, bug=bug, without=without), parts)


def first_failure(bug: int, kind: Kind, most: int, *, start: int = 0) -> int | None:
    """Return a seed of the first `most` that fails with a bug put back; None if none does.

    The seeds from `start` on are tried first.
    """
    with BUGS[bug]():
        for seed in (*range(start, most), *range(start)):
            plan = make_plan(seed)
            if plan.kind == kind and run(plan).broken:
                return seed
    return None


def shrink(plan: Plan, *, bug: int | None = None) -> Plan:
    """Return a smaller plan that breaks the same rule (delta debugging: Zeller, 2002)."""
    with nullcontext() if bug is None else BUGS[bug]():
        broken = run(plan).broken
        if not broken:
            return plan
        rule, _ = broken[0]

        def still_fails(smaller: Plan) -> bool:
            return any(one == rule for one, _ in run(smaller).broken)

        alone = replace(plan, ambush=None)
        if plan.ambush is not None and still_fails(alone):
            plan = alone
        return _with_fewer_arguments(_with_fewer_steps(plan, still_fails), still_fails)


def _with_fewer_steps(plan: Plan, still_fails: Callable[[Plan], bool]) -> Plan:
    size = max(1, len(plan.steps) // 2)
    while True:
        start, is_smaller = 0, False
        while start < len(plan.steps):
            smaller = replace(plan, steps=plan.steps[:start] + plan.steps[start + size :])
            if still_fails(smaller):
                plan, is_smaller = smaller, True
            else:
                start += size
        if size == 1 and not is_smaller:
            return plan
        size = max(1, size // 2)


def _with_fewer_arguments(plan: Plan, still_fails: Callable[[Plan], bool]) -> Plan:
    for at, step in enumerate(plan.steps):
        for name in step.args:
            kept = {one: value for one, value in plan.steps[at].args.items() if one != name}
            steps = list(plan.steps)
            steps[at] = replace(steps[at], args=kept)
            try:
                smaller = replace(plan, steps=tuple(steps))
                if still_fails(smaller):
                    plan = smaller
            except TypeError:  # the step needs it
                continue
    return plan
