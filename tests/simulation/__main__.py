"""Explore simulated worlds: python -m tests.simulation --seeds 10000 --from 0

A seed that fails is replayed with --replay SEED and made smaller with --shrink SEED.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from tests.simulation.bugs import BUGS
from tests.simulation.model import RULES
from tests.simulation.plan import Plan, make_plan
from tests.simulation.run import run
from tests.simulation.search import Found, search_on_all_cores, shrink

_TELL_EVERY_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if any seed failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many; default: 1000")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first; default: 0")
    parser.add_argument("--processes", type=int, default=1, help="that share them; default: 1")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one, and tell its story")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="as --replay, of fewer steps")
    parser.add_argument("--bug", type=int, choices=BUGS, help="put an old bug back")
    parser.add_argument("--without", choices=RULES, help="switch a rule of the model off")
    parser.add_argument("--digests", action="store_true", help="print what tells runs apart")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        return _tell(make_plan(given.replay), given.bug)
    if given.shrink is not None:
        return _tell(shrink(make_plan(given.shrink), bug=given.bug), given.bug)
    return _explore(given)


def _tell(plan: Plan, bug: int | None) -> int:
    with nullcontext() if bug is None else BUGS[bug]():
        outcome = run(plan, is_traced=True)
    print(plan, "", *outcome.trace, "", sep="\n")
    print(*(f"BROKEN {rule}: {message}" for rule, message in outcome.broken), sep="\n")
    print(f"digest {outcome.digest}")
    return int(bool(outcome.broken))


def _explore(given: argparse.Namespace) -> int:
    seeds = range(given.first, given.first + given.seeds)
    found, began = Found(), time.monotonic()
    told_at = began
    for some in search_on_all_cores(
        seeds, processes=given.processes, bug=given.bug, without=given.without
    ):
        found.add(some)
        for seed, (rule, message) in some.failures.items():
            print(f"seed {seed} breaks {rule}: {message}", flush=True)
        if given.digests:
            print(*(f"{seed} {digest}" for seed, digest in some.digests.items()), sep="\n")
        found.digests.clear()
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            print(f"{found.seeds} seeds, {len(found.failures)} failed", file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"{found.seeds} seeds in {seconds:.0f} s, {len(found.failures)} failed", file=sys.stderr)
    print(
        *(f"  {what}: {count}" for what, count in found.seen.most_common()),
        sep="\n",
        file=sys.stderr,
    )
    return int(bool(found.failures))


if __name__ == "__main__":
    sys.exit(main())
