"""The processes that send: each plans the whole scenario by itself, and sends its share.

Plans are drawn from a seed, so that nothing but a few numbers travels between processes.
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
from loadtest.generator import Generator
from loadtest.plan import Planner, StreamPlan
from loadtest.recording import plan_recording
from loadtest.samples import Samples, read_samples
from loadtest.scenario import Scenario
from loadtest.target import Target
from loadtest.texts import TextSource, read_files

_HEAD_START_S = 0.3
"""From the word that all are ready to the first request."""

_NICENESS = -10

_WARM_UP_S = 3_600.0

Progress = Callable[[int, int], None]
"""Gets the requests sent and answered so far, by all processes."""


class Failed(CacheproxyError):
    """A process that was to send could not."""


@dataclass(frozen=True)
class Assignment:
    """What the processes are to send.

    Attributes:
        scenario: phases, known texts and seed.
        target: where to.
        files: of texts; without any, texts are made up.
        recording: a recording that is replayed in place of the scenario's streams, or None.
        speed: by how much the recording is sped up.
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
    """What the parent needs to know of a stream's plan."""

    name: str
    route: str
    texts: int
    requests: int
    expected: tuple[int, ...]
    kinds: bytes
    is_open: bool


@dataclass(frozen=True)
class _Order:
    """What a process is told: to plan, to open connections, and to run what it has planned."""

    what: Literal["warm up", "plan", "open", "run", "end"]
    phase: int = 0
    capacity_per_s: float | None = None
    start: float = 0.0


class Fleet:
    """Used as a context manager; runs one phase after the other, in as many processes as given."""

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
        """Have the known texts asked for; raises `Failed`, also if the server refuses them."""
        self._tell(_Order("warm up"))
        samples = self._run(on_progress)
        refused = sorted(set(samples["status"].tolist()) - {200})
        if refused:
            raise Failed(f"the known texts could not be asked for: status {refused}")

    def plan(self, phase: int, capacity_per_s: float | None) -> list[Outline]:
        """Have a phase planned, after those before it, by all; raises `Failed`."""
        self._tell(_Order("plan", phase, capacity_per_s))
        outlines: list[Outline] = self._hear_all(lambda *_: None)[0]
        return outlines

    def run(self, on_progress: Progress) -> Samples:
        """Send what was planned; return every exchange; raises `Failed`."""
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
        """Return what each process answers with, and pass on what they say of their progress."""
        answers: dict[Connection, Any] = {}
        sent = dict.fromkeys(self._links, (0, 0))
        while len(answers) < len(self._links):
            for heard in wait([link for link in self._links if link not in answers]):
                link = cast(Connection, heard)
                try:
                    kind, said = link.recv()
                except EOFError:
                    raise Failed("a process that sends has died") from None
                if kind == "progress":
                    sent[link] = said
                    on_progress(*(sum(numbers) for numbers in zip(*sent.values(), strict=True)))
                elif kind == "failed":
                    raise Failed(said)
                else:
                    answers[link] = said
        return [answers[link] for link in self._links]


def _live(assignment: Assignment, part: int, parts: int, link: Connection) -> None:
    """What a process does until it is told to end."""
    _go_first()
    try:
        _Sender(assignment, part, parts, link).live()
    except (CacheproxyError, OSError) as error:
        link.send(("failed", str(error)))
    except (KeyboardInterrupt, EOFError):
        return


def _go_first() -> None:
    """Have this process run at once whenever it has something to do, as far as that is allowed.

    Beside inference of long texts on all cores it is late by 3 ms (p99) with a priority alone, by
    0.4 as a real-time process, which only root may be (medians of three rounds).
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
        plan.times is not None,
    )
