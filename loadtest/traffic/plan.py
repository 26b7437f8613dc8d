"""Draws and encodes all requests of a phase before the clock starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from .arrivals import Times, draw_arrivals
from .scenario import KINDS, Mix, Phase, Replayed, Stream
from .target import Target, user_message
from .texts import Drawn, TextSource, text_of_words

MIXED = len(KINDS)
"""Stands in place of a kind for a request with texts of several kinds."""

_CLOSED_PER_S = 3_000
"""Texts a second for which a closed loop has requests. A loop of repeats starts over when they
are used up; any other loop stops."""

_WARM_UP_CLIENTS = 16

_THINKING = 1
"""Makes the draws of pauses others than those of arrivals."""

_ANSWER_S = 1.0
"""Time allowed for the answer to a turn of a session, before the session counts as known."""


@dataclass
class StreamPlan:
    """The requests of one stream, in the order of sending.

    Attributes:
        name: of the stream.
        route: the API that is called.
        streamed: whether answers are streamed.
        requests: the bytes of each request.
        kinds: the kind of each request's texts, as an index into `KINDS`, or `MIXED`.
        expected: total number of texts of each kind.
        texts: number of texts in each request.
        times: when to send, in seconds from the start; None for a closed loop.
        clients: number of clients of a closed loop.
        turns: requests of a session, which stand together; `times` are those of sessions.
        pauses_s: float64 [requests], how long to think before each; None if nobody thinks.
    """

    name: str
    route: Replayed = "embeddings"
    streamed: bool = False
    requests: list[bytes] = field(default_factory=list)
    kinds: bytearray = field(default_factory=bytearray)
    expected: list[int] = field(default_factory=lambda: [0] * len(KINDS))
    texts: int = 1
    times: Times | None = None
    clients: int = 0
    turns: int = 1
    pauses_s: Times | None = None

    def add(self, request: bytes, drawn: Sequence[Drawn]) -> None:
        """Add a request with its texts."""
        kinds = [KINDS.index(one.kind) for one in drawn]
        for kind in kinds:
            self.expected[kind] += 1
        self.requests.append(request)
        self.kinds.append(kinds[0] if len(set(kinds)) == 1 else MIXED)


class Planner:
    """Plans the phases of a scenario, in their order."""

    def __init__(self, source: TextSource, target: Target, seed: int) -> None:
        self._source = source
        self._target = target
        self._seed = seed
        self._elapsed_s = 0.0

    def warm_up(self, count: int, like: Stream) -> StreamPlan:
        """Return requests that make `count` texts known, in the form of a stream's requests."""
        plan = StreamPlan(
            "warm-up", like.route, like.streamed, clients=_WARM_UP_CLIENTS, turns=like.turns
        )
        texts = (
            self._source.draw(Mix(unseen=1.0), like.words, 0, remember=False) for _ in range(count)
        )
        plan.texts = like.batch
        while part := list(islice(texts, plan.texts)):
            for drawn in part:
                self._source.remember(drawn.text, 0)
            for request in self._write(like, [drawn.text for drawn in part]):
                plan.add(request, part)
        return plan

    def plan(self, phase: Phase, number: int, capacity_per_s: float | None) -> list[StreamPlan]:
        """Return the streams of a phase.

        Raises:
            ConfigError: the trace cannot be read, or no earlier phase found the capacity.
        """
        rng = np.random.default_rng([self._seed, number])
        plans = []
        for stream in phase.streams:
            plan = StreamPlan(
                stream.name, stream.route, stream.streamed, texts=stream.batch, turns=stream.turns
            )
            if stream.clients is None:
                plan.times = draw_arrivals(stream, phase.seconds, capacity_per_s, rng)
            else:
                plan.clients = stream.clients
            plans.append(plan)
        for moment_s, which in self._moments(phase, plans):
            stream, plan = phase.streams[which], plans[which]
            # A closed loop may end before it has sent all of its requests.
            is_sent = plan.times is not None
            drawn = [
                self._source.draw(
                    stream.mix,
                    stream.words,
                    self._elapsed_s + moment_s,
                    remember=is_sent,
                    lasts_s=(stream.turns - 1) * (stream.think_s + _ANSWER_S),
                )
                for _ in range(stream.batch)
            ]
            for request in self._write(stream, [one.text for one in drawn]):
                plan.add(request, drawn)
        thinking = np.random.default_rng([self._seed, number, _THINKING])
        for stream, plan in zip(phase.streams, plans, strict=True):
            if stream.think_s:
                plan.pauses_s = thinking.exponential(stream.think_s, len(plan.requests))
        self._elapsed_s += phase.seconds
        return plans

    def _moments(self, phase: Phase, plans: Sequence[StreamPlan]) -> Iterator[tuple[float, int]]:
        moments, seconds = [], phase.seconds
        for which, plan in enumerate(plans):
            think_s = phase.streams[which].think_s
            if plan.times is not None:
                moments += [(float(moment), which) for moment in plan.times]
            else:
                count = int(_CLOSED_PER_S * seconds / plan.texts / plan.turns)
                if think_s:
                    count = min(count, plan.clients * int(3 * seconds / think_s + 10))
                count = max(count, plan.clients)
                moments += [(0.0, which)] * count
        return iter(sorted(moments))

    def _write(self, stream: Stream, texts: Sequence[str]) -> list[bytes]:
        """Return the request for texts, or those of the session that a text begins."""
        target = self._target
        if stream.model is not None:
            target = replace(target, model=stream.model)
        if stream.route == "chat":
            sessions = _session("\n".join(texts), stream)
            return [
                target.chat(said, streamed=stream.streamed, usage=stream.usage) for said in sessions
            ]
        return [target.embeddings(texts)]


def _session(text: str, stream: Stream) -> Iterator[list[dict[str, str]]]:
    """Yield the messages of each turn.

    What is said after the first text follows from it, the assistant's part too, so that a repeated
    session is the same to the byte whatever the server answers.
    """
    words = sum(stream.words) // 2
    said = user_message(text)
    yield said
    for turn in range(1, stream.turns):
        reply = {"role": "assistant", "content": text_of_words(f"{text} reply {turn}", words)}
        said = [*said, reply, *user_message(text_of_words(f"{text} turn {turn}", words))]
        yield said
