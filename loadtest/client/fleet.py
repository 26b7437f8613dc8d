"""The processes that send: each plans the whole scenario, and sends its share of it.

Plans are drawn from a seed, so that the processes exchange only a few numbers.
"""

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, cast

import uvloop

from cacheproxy.concurrency.time_slices import be_prompt
from cacheproxy.errors import CacheproxyError

from ..errors import LoadTestError, NotAnswered
from ..traffic.plan import Planner, StreamPlan
from ..traffic.recording import plan_recording
from ..traffic.scenario import Scenario
from ..traffic.target import Target
from ..traffic.texts import TextSource, read_files
from .generator import Generator
from .samples import Samples, describe_statuses, read_samples

_HEAD_START_S = 0.3
"""Time from the start signal to the first request."""

_NICENESS = -10

_WARM_UP_S = 3_600.0

Progress = Callable[[int, int], None]
"""Receives the numbers of requests sent and answered so far by all processes."""


@dataclass(frozen=True)
class Assignment:
    """What the processes send.

    Attributes:
        scenario: phases, known texts and seed.
        target: where requests go.
        files: files of texts; without any, texts are made up.
        recording: path of a recording that replaces the scenario's streams, or None.
        speed: factor by which the recording is sped up.
        timeout_s: longest wait for an answer.
    """

    scenario: Scenario
    target: Target
    files: tuple[str, ...] = ()
    recording: str | None = None
    speed: float = 1.0
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Outline:
    """What the parent process needs to know about the plan of a stream."""

    name: str
    route: str
    texts: int
    requests: int
    expected: tuple[int, ...]
    kinds: bytes
    is_open: bool
    clients: int = 0


@dataclass(frozen=True)
class _Order:
    """A command to a process: plan, open connections, or send what is planned."""

    what: Literal["warm up", "plan", "open", "run", "end"]
    phase: int = 0
    capacity_per_s: float | None = None
    start: float = 0.0


class Fleet:
    """Runs one phase after the other in several processes, within a `with` block."""

    def __init__(self, assignment: Assignment, processes: int) -> None:
        self._assignment = assignment
        self._count = processes

    def __enter__(self) -> "Fleet":
        context = multiprocessing.get_context("spawn")
        self._links: list[Connection] = []
        self._processes = []
        for part in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_live, args=(self._assignment, part, self._count, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._links.append(ours)
            self._processes.append(process)
        return self

    def __exit__(self, *raised: object) -> None:
        for link in self._links:
            with suppress(OSError):
                link.send(_Order("end"))
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()

    def warm_up(self, on_progress: Progress) -> None:
        """Ask for the known texts.

        Raises:
            LoadTestError: a process failed.
            NotAnswered: a request was not answered with 200.
        """
        self._tell(_Order("warm up"))
        samples = self._run(on_progress)
        failed = describe_statuses(samples["status"], allowed=(200,))
        if failed:
            raise NotAnswered(f"known texts: {failed}")

    def plan(self, phase: int, capacity_per_s: float | None) -> list[Outline]:
        """Plan the next phase in all processes; raises `LoadTestError`."""
        self._tell(_Order("plan", phase, capacity_per_s))
        outlines: list[Outline] = self._hear_all(lambda *_: None)[0]
        return outlines

    def run(self, on_progress: Progress) -> Samples:
        """Send what was planned, and return every exchange; raises `LoadTestError`."""
        return self._run(on_progress)

    def _run(self, on_progress: Progress) -> Samples:
        self._tell(_Order("open"))
        self._hear_all(on_progress)
        self._tell(_Order("run", start=time.perf_counter() + _HEAD_START_S))
        return read_samples(b"".join(self._hear_all(on_progress)))

    def _tell(self, order: _Order) -> None:
        for link in self._links:
            link.send(order)

    def _hear_all(self, on_progress: Progress) -> list[Any]:
        """Return the answer of each process, and pass on the progress that they report."""
        answers: dict[Connection, Any] = {}
        sent = dict.fromkeys(self._links, (0, 0))
        while len(answers) < len(self._links):
            for heard in wait([link for link in self._links if link not in answers]):
                link = cast(Connection, heard)
                try:
                    kind, said = link.recv()
                except EOFError:
                    raise LoadTestError("a sending process has died") from None
                if kind == "progress":
                    sent[link] = said
                    on_progress(*(sum(numbers) for numbers in zip(*sent.values(), strict=True)))
                elif kind == "failed":
                    raise LoadTestError(said)
                else:
                    answers[link] = said
        return [answers[link] for link in self._links]


def _live(assignment: Assignment, part: int, parts: int, link: Connection) -> None:
    """Run a process until it is told to end."""
    _go_first()
    try:
        _Sender(assignment, part, parts, link).live()
    except (CacheproxyError, OSError) as error:
        link.send(("failed", str(error)))
    except (KeyboardInterrupt, EOFError):
        return


def _go_first() -> None:
    """Give this process priority over all others, as far as the system allows it.

    Beside inference of long texts on all cores, sending is late by 3 ms (p99) with a priority
    alone, and by 0.4 ms as a real-time process, which needs root (medians of three rounds).
    """
    be_prompt()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


class _Sender:
    def __init__(self, assignment: Assignment, part: int, parts: int, link: Connection) -> None:
        self._assignment = assignment
        self._part = part
        self._parts = parts
        self._link = link
        self._plans: list[StreamPlan] = []
        self._seconds = 0.0
        scenario = assignment.scenario
        if assignment.recording is None:
            source = TextSource(scenario.seed, read_files(assignment.files))
            self._planner = Planner(source, assignment.target, scenario.seed)

    def live(self) -> None:
        """Follow orders."""
        while (order := self._link.recv()).what != "end":
            if order.what == "open":
                self._link.send(("rows", uvloop.run(self._send())))
            elif order.what == "plan":
                self._plan(order)
                self._link.send(("outlines", [_outline(plan) for plan in self._plans]))
            else:
                scenario = self._assignment.scenario
                first = scenario.phases[0].streams[0]
                self._plans = [self._planner.warm_up(scenario.known_texts, first)]
                self._seconds = _WARM_UP_S

    def _plan(self, order: _Order) -> None:
        assignment = self._assignment
        phase = assignment.scenario.phases[order.phase]
        self._seconds = phase.seconds
        if assignment.recording is not None:
            self._plans = plan_recording(assignment.recording, assignment.target, assignment.speed)
        else:
            self._plans = self._planner.plan(phase, order.phase, order.capacity_per_s)

    async def _send(self) -> bytes:
        generator = Generator(
            self._assignment.target,
            self._plans,
            seconds=self._seconds,
            timeout_s=self._assignment.timeout_s,
            part=self._part,
            parts=self._parts,
        )
        await generator.open()
        self._link.send(("opened", None))
        order = await asyncio.get_running_loop().run_in_executor(None, self._link.recv)
        return await generator.run(
            order.start, lambda sent, answered: self._link.send(("progress", (sent, answered)))
        )


def _outline(plan: StreamPlan) -> Outline:
    return Outline(
        plan.name,
        plan.route,
        plan.texts,
        len(plan.requests),
        tuple(plan.expected),
        bytes(plan.kinds),
        plan.times is not None and plan.turns == 1,  # a session may end early
        plan.clients,
    )
