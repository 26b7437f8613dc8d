"""What a load test does: phases of streams of requests, read from TOML.

A scenario says everything that is drawn (its seed included), so that the same file makes the same
requests; where they go is the command line's business.
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from cacheproxy.errors import ConfigError

_FOLDER = Path(__file__).parent / "scenarios"

Kind = Literal["repeat", "paraphrase", "typo", "unseen"]
KINDS: tuple[Kind, ...] = ("repeat", "paraphrase", "typo", "unseen")
"""What a text is when it is asked for: in numbers, its place here."""


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the kinds of texts; they add up to 1.

    Attributes:
        repeat: asked for before, to the byte.
        paraphrase: of a text that was asked for before, in other words.
        typo: a text that was asked for before, with a slip of the finger.
        unseen: never asked for.
    """

    repeat: float = 0.0
    paraphrase: float = 0.0
    typo: float = 0.0
    unseen: float = 0.0


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of one sort, by a schedule (open loop) or by clients that wait (closed loop).

    Attributes:
        name: as the report calls it.
        mix: of its texts.
        route: what is asked for.
        streamed: whether chat answers come in pieces.
        batch: texts in one request.
        words: the least and the most words of a made-up text.
        per_s: requests a second, at random moments (Poisson).
        per_capacity: the same, as a multiple of the capacity that a phase before has found.
        steps: pairs of requests a second and seconds, over and over.
        trace: a CSV file, gzip or not, with a column `arrival_ms`.
        speed: by how much the trace is sped up.
        clients: clients that each send when they have their answer.
    """

    name: str
    mix: Mix = Mix(unseen=1.0)
    route: Literal["embeddings", "chat"] = "embeddings"
    streamed: bool = False
    batch: int = 1
    words: tuple[int, int] = (6, 15)
    per_s: float | None = None
    per_capacity: float | None = None
    steps: tuple[tuple[float, float], ...] = ()
    trace: str | None = None
    speed: float = 1.0
    clients: int | None = None


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Streams that run at the same time.

    Attributes:
        name: as the report calls it.
        seconds: for how long requests are sent.
        streams: of requests.
        settle_s: seconds at the start that figures leave out (plots and the truth check do not).
        restart: whether the server that `--serve` started is stopped and started before.
        finds_capacity: whether the answers a second of the first stream are the capacity.
    """

    name: str
    seconds: float
    streams: tuple[Stream, ...]
    settle_s: float = 0.0
    restart: bool = False
    finds_capacity: bool = False


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
        about: what it is for, in a line.
        phases: one after the other.
        known_texts: texts that are asked for before the clock starts.
        seed: of all that is drawn.
        flags: of the server that `--serve` starts.
        promises: that are kept, or the run fails.
    """

    about: str
    phases: tuple[Phase, ...]
    known_texts: int = 0
    seed: int = 1
    flags: tuple[str, ...] = ()
    promises: tuple[Promise, ...] = ()


def scenario_names() -> list[str]:
    """Return the names of the scenarios that come with the tool."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """Return a scenario by its name, or by the path of a TOML file.

    Raises:
        ConfigError: there is none, or it makes no sense; the message says where.
    """
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    try:
        scenario = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Scenario)
    except OSError:
        known = ", ".join(scenario_names())
        raise ConfigError(f"there is no scenario {name}; there are {known}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from None
    _check(scenario, path)
    return scenario


def _check(scenario: Scenario, path: Path) -> None:
    for phase in scenario.phases:
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
                    f"{place}: give one of per_s, per_capacity, steps, trace and clients"
                )
    names = {phase.name for phase in scenario.phases}
    for promise in scenario.promises:
        if {promise.phase, promise.times or promise.phase} - names:
            raise ConfigError(f"{path}: a promise names a phase that there is not")
        if (promise.at_most is None) == (promise.at_least is None):
            raise ConfigError(f"{path}: {promise.figure}: give either at_most or at_least")
