"""A worker as its supervisor sees it: the process, and what is said over the link to it."""

import asyncio
import itertools
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack

from cacheproxy.errors import ConfigError
from cacheproxy.server.link import (
    Answered,
    Ask,
    Channel,
    Count,
    Counted,
    Failed,
    Job,
    Look,
    Pick,
    Prepare,
    Prepared,
    Question,
    Ready,
    Refused,
    Reload,
    Scrape,
    Stop,
    Take,
    Told,
)
from cacheproxy.server.listeners import join
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.merged import Family
from cacheproxy.telemetry.namespaces.traffic import Tally

_PREPARE_S = 10.0
"""How long a worker may take to make ready for other settings; a busy one takes milliseconds."""

_ANSWER_S = 1.0
"""If a worker takes longer than this to answer an operator's question, it is left out."""


class WorkerProcess:
    """A worker process.

    Attributes:
        is_ready: whether it accepts connections.
        failure: its reason for not starting, if it reported one.
        counted: its most recent counts.
        silent_rounds: how often in a row it was asked for them and told nothing.
        settings: what it runs by.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, channel: Channel, settings: Settings
    ) -> None:
        self.settings = settings
        self._prepared: asyncio.Future[str | None] | None = None
        self._numbers = itertools.count(1)
        self._preparing = 0
        self._process = process
        self._channel = channel
        self._asked = 0
        self._fresh: asyncio.Future[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._asked_for: dict[int, asyncio.Future[bytes]] = {}
        self.is_ready = False
        self.failure: Failed | None = None
        self.counted: list[Family] = []
        self.silent_rounds = 0

    @classmethod
    async def start(
        cls, settings: Settings, reserved: Mapping[str, socket.socket], *, warms_up: bool
    ) -> "WorkerProcess":
        """Start a process that will serve on sockets of its own on the reserved addresses.

        Raises:
            OSError: the system has no more of something.
        """
        ours, theirs = socket.socketpair()
        with (
            ExitStack() as passed_on
        ):  # owned by the worker alone: they close whenever and however it exits
            passed_on.enter_context(theirs)
            descriptors = {
                name: passed_on.enter_context(join(address)).fileno()
                for name, address in reserved.items()
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cacheproxy.server.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(), *descriptors.values()),
                process_group=0,  # the supervisor forwards an interrupt from the terminal
            )
        channel = await Channel.open(ours)
        channel.send_job(Job(settings, descriptors, warms_up))
        return cls(process, channel, settings)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def run(
        self,
        on_ready: Callable[["WorkerProcess"], None],
        on_traffic: Callable[[list[Tally]], None],
        answer: Callable[[Question], Awaitable[bytes]],
    ) -> int:
        """Receive its messages until it exits; return its exit status, negative for a signal."""
        async for message in self._channel.messages():
            self.silent_rounds = 0
            match message:
                case Ready():
                    self.is_ready = True
                    on_ready(self)
                case Failed():
                    self.failure = message
                case Counted():
                    on_traffic(message.traffic)
                    self._keep_counted(message)
                case Prepared():
                    if message.number == self._preparing:
                        self._keep_prepared(message.refusal)
                case Answered():
                    waiting = self._asked_for.get(message.number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message.answer)
                case Scrape() | Look() | Pick() | Ask() | Reload():
                    telling = asyncio.create_task(self._tell(message, answer))
                    self._answers.add(telling)
                    telling.add_done_callback(self._answers.discard)
        self.is_ready = False
        self._keep_prepared(f"worker {self.pid} has ended")
        await self._channel.close()
        return await self._process.wait()

    def stop(self, order: Stop) -> None:
        """Ask it to stop."""
        self._channel.send(order)

    async def prepare(self, settings: Settings) -> None:
        """Have it make ready for other settings.

        Raises:
            ConfigError: it cannot take them, or does not answer.
        """
        self._prepared = asyncio.get_running_loop().create_future()
        self._preparing = next(self._numbers)
        self._channel.send(Prepare.to_take(settings, self._preparing))
        try:
            refusal = await asyncio.wait_for(self._prepared, _PREPARE_S)
        except TimeoutError:
            refusal = f"worker {self.pid} does not answer"
        if refusal is not None:
            raise ConfigError(refusal)

    def take(self, settings: Settings | None) -> None:
        """Have it take the settings that it is ready for; None: it is to forget them."""
        self._channel.send(Take(next(self._numbers), settings is not None))
        self.settings = settings or self.settings

    def _keep_prepared(self, refusal: str | None) -> None:
        if self._prepared is not None and not self._prepared.done():
            self._prepared.set_result(refusal)

    def kill(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()

    async def count(self) -> None:
        """Update `counted` to a state no older than this call."""
        self._asked += 1
        self._fresh = asyncio.get_running_loop().create_future()
        if not self._channel.is_backed_up:
            self._channel.send(Count(self._asked))
        await self._fresh

    async def ask(self, question: Ask) -> bytes | None:
        """Return its answer; None if it does not answer in time."""
        answer = self._asked_for[question.number] = asyncio.get_running_loop().create_future()
        self._channel.send(question)
        try:
            return await asyncio.wait_for(answer, _ANSWER_S)
        except TimeoutError:
            return None
        finally:
            del self._asked_for[question.number]

    def _keep_counted(self, message: Counted) -> None:
        self.counted = message.families
        if message.number == self._asked and self._fresh is not None and not self._fresh.done():
            self._fresh.set_result(None)

    async def _tell(
        self, question: Question, answer: Callable[[Question], Awaitable[bytes]]
    ) -> None:
        try:
            self._channel.send(Told(question.number, await answer(question)))
        except ConfigError as error:
            self._channel.send(Refused(question.number, str(error)))
