"""Runs one plan: builds its world, lets it happen, and hands back what the model says of it."""

import atexit
import gc
import hashlib
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cacheproxy.stores.embedded import notices, rows
from tests.simulation.nature import nature_of
from tests.simulation.plan import Plan
from tests.simulation.play import Play
from tests.simulation.world import Stuck, World

_RUNS_PER_COLLECTION = 4

_LOG = logging.getLogger("cacheproxy")


@dataclass
class Outcome:
    """How a world ended.

    Attributes:
        broken: rule and message of each rule that was broken; none if all is well.
        digest: of all that happened: equal for equal runs.
        seen: how often what happened.
        trace: what happened, if it was asked for.
    """

    broken: list[tuple[str, str]]
    digest: str
    seen: Counter[str]
    trace: list[str] = field(default_factory=list)


@contextmanager
def _small_slices() -> Iterator[None]:
    """Let the embedded store work in slices of two rows, so that small worlds have many."""
    before = rows.WRITE_ROWS
    rows.WRITE_ROWS = notices.WRITE_ROWS = 2
    try:
        yield
    finally:
        rows.WRITE_ROWS = notices.WRITE_ROWS = before


_over: list[Play] = []


@contextmanager
def _no_collection(play: Play) -> Iterator[None]:
    """Keep the garbage collector out of a world: when it runs depends on what ran before.

    It stays off between worlds, as it would look through those that have just ended each time.
    """
    if gc.isenabled():
        gc.disable()
        gc.freeze()  # what was imported is not looked through, either
    try:
        yield
    finally:
        _over.append(play)
        if len(_over) == _RUNS_PER_COLLECTION:
            _collect()


def _collect() -> None:
    """Remove the processes that were killed; what they complain of at their end is no news."""
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            _over.clear()
            gc.collect()
    finally:
        logging.disable(logging.NOTSET)
        sys.unraisablehook = before


atexit.register(_collect)


class _Heard(logging.Handler):
    """Takes log lines that tell of exceptions which nobody expected."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.world.blame("unexpected", f"{record.getMessage()} {error!r}")


def run(plan: Plan, *, without: str | None = None, is_traced: bool = False) -> Outcome:
    """Let a plan happen, judged by all rules but one."""
    play = Play(plan, without, is_traced=is_traced)
    world, model = play.world, play.model
    heard = _Heard(world)
    _LOG.addHandler(heard)
    propagates, _LOG.propagate = _LOG.propagate, False
    level = _LOG.level
    _LOG.setLevel(logging.ERROR)  # so that no record is made of what is not heard
    try:
        with warnings.catch_warnings(), _no_collection(play), nature_of(world), _small_slices():
            warnings.simplefilter("ignore", RuntimeWarning)  # of tasks that were killed
            try:
                play.play()
            except Stuck as error:
                model.breaks("answered", str(error))
            world.end()
    finally:
        _LOG.removeHandler(heard)
        _LOG.propagate = propagates
        _LOG.setLevel(level)
    model.finish()
    told = f"{world.now!r} {world.steps} {play.peer.commands} {sorted(model.seen.items())}"
    digest = hashlib.sha256(f"{told} {model.broken}".encode()).hexdigest()[:16]
    return Outcome(model.broken, digest, model.seen, world.trace or [])
