"""What a load test does: phases of streams of requests, read from TOML.

A scenario fixes everything that is drawn at random, its seed included, so that the same file always
makes the same requests. The command line says where they go.
"""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from cacheproxy.errors import ConfigError

_FOLDER = Path(__file__).parents[1] / "scenarios"

Kind = Literal["repeat", "paraphrase", "typo", "unseen"]
KINDS: tuple[Kind, ...] = ("repeat", "paraphrase", "typo", "unseen")
"""The kinds of texts. A number that stands for a kind is its index here."""

Route = Literal["embeddings", "chat"]
Replayed = Literal["embeddings", "chat", "rerank"]

Fault = Literal[
    "reloads",
    "purges",
    "slow-clients",
    "cpu-hog",
    "store-locked",
    "upstream-fails",
    "upstream-stalls",
    "worker-ends",
    "worker-killed",
    "worker-hangs",
]
"""What can be done to the server during a phase; `loadtest.soak.faults` says what each is."""

KILLS: tuple[Fault, ...] = ("worker-killed", "worker-hangs")
"""Faults that take a worker's counts of its last second with it."""

_SESSION = ("chat", 1)
"""Route and batch of a stream of sessions."""

_SMOKE_FAULTS = ("reloads", "upstream-fails", "worker-ends")
_SMOKE_PHASE_S = 1.0
_SMOKE_TEXTS = 50
_SMOKE_BATCH = 32
_SMOKE_RATE = 0.1
_SMOKE_LEAST_PER_S = 10.0
"""Below, a phase of a second might send nothing."""


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the kinds of texts; they add up to 1.

    Attributes:
        repeat: byte for byte a text that was asked for before.
        paraphrase: a text that was asked for before, in other words.
        typo: a text that was asked for before, with a typing error.
        unseen: a text that was never asked for.
    """

    repeat: float = 0.0
    paraphrase: float = 0.0
    typo: float = 0.0
    unseen: float = 0.0


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of one kind, sent on a schedule (open loop) or by waiting clients (closed loop).

    Attributes:
        name: shown in the report.
        mix: shares of the kinds of texts.
        route: the API that is called.
        model: the model that is asked for; by default the run's own (`--model`).
        streamed: whether chat answers are streamed.
        usage: whether a stream is asked for its number of tokens, which comes at its end.
        turns: questions of a chat session. Each is sent with all that was said before, when the
            one before was answered with 200 and `think_s` has passed; rates count sessions.
        think_s: mean pause of a client, or of a session, between an answer and the next question
            (exponentially distributed).
        batch: number of texts in one request.
        words: least and most words of a made-up text.
        per_s: requests a second, at random moments (a Poisson process).
        cv: coefficient of variation of the gaps between arrivals, which are gamma distributed:
            1 is the Poisson process, above 1 come bursts, below 1 the gaps are more even.
        per_capacity: the same, as a multiple of the capacity that an earlier phase found.
        steps: pairs of requests a second and seconds, repeated.
        trace: path of a CSV file, gzip or not, with a column `arrival_ms`.
        speed: factor by which the trace is sped up.
        clients: number of clients, each of which sends again when it has its answer.
    """

    name: str
    mix: Mix = Mix(unseen=1.0)
    route: Route = "embeddings"
    model: str | None = None
    streamed: bool = False
    usage: bool = False
    turns: int = 1
    think_s: float = 0.0
    batch: int = 1
    words: tuple[int, int] = (6, 15)
    per_s: float | None = None
    cv: float = 1.0
    per_capacity: float | None = None
    steps: tuple[tuple[float, float], ...] = ()
    trace: str | None = None
    speed: float = 1.0
    clients: int | None = None


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Streams that run at the same time.

    Attributes:
        name: shown in the report.
        seconds: how long requests are sent.
        streams: what is sent; without any, what is sent in the phase before.
        settle_s: seconds at the start that the figures leave out (plots, the truth check and the
            list of failures include them).
        restart: whether the server that `--serve` started is restarted first.
        finds_capacity: whether the answers a second of the first stream are the capacity.
        may_refuse: whether 429 and 503 are expected. In other phases they fail the run.
        may_fail: whether anything may happen to a request.
        fault: what is done to the server that `--serve` started, from a fifth of the phase to its
            middle; the phase ends when the server has recovered.
    """

    name: str
    seconds: float
    streams: tuple[Stream, ...] = ()
    settle_s: float = 0.0
    restart: bool = False
    finds_capacity: bool = False
    may_refuse: bool = False
    may_fail: bool = False
    fault: Fault | None = None


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit on a figure of a phase; `times` makes it a multiple of another phase's figure."""

    phase: str
    figure: str
    at_most: float | None = None
    at_least: float | None = None
    times: str | None = None
    stream: str | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A load test.

    Attributes:
        about: its purpose, in a line.
        phases: run one after the other.
        known_texts: number of texts that are asked for before the clock starts.
        seed: of every random choice.
        flags: for the server that `--serve` starts.
        upstream: whether a bare upstream for chat is started for that server.
        promises: limits; if one is broken, the run fails.
    """

    about: str
    phases: tuple[Phase, ...]
    known_texts: int = 0
    seed: int = 1
    flags: tuple[str, ...] = ()
    upstream: bool = False
    promises: tuple[Promise, ...] = ()

    def with_seconds(self, seconds: float) -> "Scenario":
        """Return this scenario with every phase `seconds` long."""
        phases = [
            msgspec.structs.replace(
                phase,
                seconds=seconds,
                settle_s=phase.settle_s * min(1.0, seconds / phase.seconds),
            )
            for phase in self.phases
        ]
        return msgspec.structs.replace(self, phases=tuple(phases))

    def with_rates(self, scale: float) -> "Scenario":
        """Return this scenario with `scale` times as many requests a second in open loops."""
        return self._with_streams(
            lambda stream: msgspec.structs.replace(
                stream,
                per_s=stream.per_s and stream.per_s * scale,
                steps=tuple((per_s * scale, seconds) for per_s, seconds in stream.steps),
            )
        )

    def with_trace(self, path: str, speed: float) -> "Scenario":
        """Return this scenario with its schedules replaced by a trace; closed loops stay."""
        return self._with_streams(
            lambda stream: (
                stream
                if stream.clients
                else msgspec.structs.replace(
                    stream, per_s=None, per_capacity=None, steps=(), trace=path, speed=speed
                )
            )
        )

    def as_smoke_test(self) -> "Scenario":
        """Return the smallest form of this scenario, which only shows that everything works.

        Phases of a second, a tenth of the rates, few known texts, small batches, and of the faults
        those that are soon over, each once. There are no promises, because the figures mean
        nothing.
        """

        def reduce(stream: Stream) -> Stream:
            return msgspec.structs.replace(
                stream,
                per_s=stream.per_s and _smoke_rate(stream.per_s),
                steps=tuple((_smoke_rate(per_s), _SMOKE_PHASE_S / 2) for per_s, _ in stream.steps),
                batch=min(stream.batch, _SMOKE_BATCH),
            )

        last = {one.fault: one for one in self.phases if one.fault in _SMOKE_FAULTS}
        phases = [one for one in self.phases if one.fault is None or one is last.get(one.fault)]
        short = msgspec.structs.replace(self, phases=tuple(phases))
        return msgspec.structs.replace(
            short.with_seconds(_SMOKE_PHASE_S)._with_streams(reduce),
            known_texts=min(self.known_texts, _SMOKE_TEXTS),
            promises=(),
        )

    def _with_streams(self, change: Callable[[Stream], Stream]) -> "Scenario":
        phases = [
            msgspec.structs.replace(phase, streams=tuple(map(change, phase.streams)))
            for phase in self.phases
        ]
        return msgspec.structs.replace(self, phases=tuple(phases))


def _smoke_rate(per_s: float) -> float:
    return max(per_s * _SMOKE_RATE, _SMOKE_LEAST_PER_S)


def scenario_names() -> list[str]:
    """Return the names of the scenarios that come with the load tester."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """Return a scenario by its name, or by the path of a TOML file.

    Raises:
        ConfigError: it does not exist or is not valid; the message says where.
    """
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    try:
        scenario = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Scenario)
    except OSError:
        known = ", ".join(scenario_names())
        raise ConfigError(f"there is no scenario {name}; there are {known}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from None
    scenario = msgspec.structs.replace(scenario, phases=_all_with_streams(scenario.phases))
    _check(scenario, path)
    return scenario


def _all_with_streams(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Return the phases; those without streams have those of the phase before."""
    found: list[Phase] = []
    for phase in phases:
        streams = phase.streams or (found[-1].streams if found else ())
        found.append(msgspec.structs.replace(phase, streams=streams))
    return tuple(found)


def _check(scenario: Scenario, path: Path) -> None:
    for phase in scenario.phases:
        if not phase.streams:
            raise ConfigError(f"{path}: {phase.name}: the first phase has no streams")
        if not 0 <= phase.settle_s < phase.seconds:
            raise ConfigError(f"{path}: {phase.name}: settle_s must be less than seconds")
        for stream in phase.streams:
            place = f"{path}: {phase.name}: {stream.name}"
            total = sum(getattr(stream.mix, kind) for kind in KINDS)
            if abs(total - 1) > 1e-9:
                raise ConfigError(f"{place}: the mix adds up to {total:g}, not to 1")
            ways = (stream.per_s, stream.per_capacity, stream.steps, stream.trace, stream.clients)
            if sum(bool(way) for way in ways) != 1:
                raise ConfigError(
                    f"{place}: give exactly one of per_s, per_capacity, steps, trace and clients"
                )
            if stream.cv <= 0 or (stream.cv != 1 and not (stream.per_s or stream.per_capacity)):
                raise ConfigError(f"{place}: cv is more than 0, and needs per_s or per_capacity")
            if stream.turns < 1 or (stream.turns > 1 and (stream.route, stream.batch) != _SESSION):
                raise ConfigError(f"{place}: turns are at least 1, and need the route chat")
            if stream.think_s < 0 or (stream.think_s and not stream.clients and stream.turns == 1):
                raise ConfigError(f"{place}: think_s is not negative, and needs clients or turns")
    names = {phase.name for phase in scenario.phases}
    for promise in scenario.promises:
        if {promise.phase, promise.times or promise.phase} - names:
            raise ConfigError(f"{path}: a promise names a phase that does not exist")
        if (promise.at_most is None) == (promise.at_least is None):
            raise ConfigError(f"{path}: {promise.figure}: give either at_most or at_least")
