"""Plans: what clients, operators and nature do in one world, and when; made from a seed.

Each world draws which kinds of faults it has at all, since faults that always come together hide
each other (swarm testing: Groce et al., ISSTA 2012).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

Kind = Literal["plain", "evidence", "embedded", "chat"]

_LETTERS = "abcdefghijklmnopqrstuvw"


@dataclass(frozen=True)
class Step:
    """Something that happens at a time, seconds."""

    at: float
    what: str
    server: int = 0
    args: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.at:8.3f}  server {self.server}  {self.what} {told}".rstrip()


@dataclass(frozen=True)
class Plan:
    """One world.

    Attributes:
        seed: decides chance in it.
        kind: of world.
        servers: how many there are.
        settings: what differs from the defaults.
        steps: what happens, in order.
        ambush: what happens at some of the moments at which Redis has just written, or None.
    """

    seed: int
    kind: Kind
    servers: int
    settings: dict[str, Any]
    steps: tuple[Step, ...]
    ambush: Step | None = None

    def __str__(self) -> str:
        head = f"seed {self.seed}: {self.kind}, {self.servers} servers, {self.settings}"
        if self.ambush is not None:
            head += f"\nat some writes: {self.ambush}"
        return "\n".join((head, *map(str, self.steps)))


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    draw = Random(f"plan {seed}")  # noqa: S311
    kind: Kind = draw.choices(("plain", "evidence", "embedded", "chat"), (68, 12, 10, 10))[0]
    if kind == "chat":
        return _chat(seed, draw)
    if kind == "evidence":
        return _evidence(seed, draw)
    if kind == "embedded":
        return _embedded(seed, draw)
    return _shared(seed, kind, draw)


def _shared(seed: int, kind: Kind, draw: Random) -> Plan:
    servers = draw.choice((1, 2, 2, 3))
    span_s = draw.choice((1.0, 4.0, 15.0))
    settings = {
        "hot_bytes": draw.choice((0, 3_000, 1_000_000)),
        "ttl_s": draw.choice((3.0, 3600.0)),
        "ttl_jitter": draw.choice((0.0, 0.1)),
        "deadline_ms": draw.choice((5.0, 25.0)),
        "threshold": draw.choice((None, None, 0.75)),
        "mode": draw.choice(("off", "on")),
    }
    texts = _texts(draw, draw.choice((1, 3, 8)))
    if draw.random() < 0.2:
        settings |= {"threshold": 0.75, "mode": "on"}
        steps = [*_near_requests(draw, servers, span_s), *_faults(draw, kind, servers, span_s)]
        return Plan(seed, kind, servers, settings, in_order(steps))
    steps = [*_requests(draw, servers, span_s, texts), *_faults(draw, kind, servers, span_s)]
    return Plan(seed, kind, servers, settings, in_order(steps), _ambush(draw))


def _ambush(draw: Random) -> Step | None:
    what = draw.choice((None, None, "kill", "purge", "evict", "cut", "freeze"))
    if what is None:
        return None
    args: dict[str, Any] = {}
    if what == "purge":
        args = {"namespace": draw.randrange(2), "scope": draw.choice(("namespace", "tag", "key"))}
        args["is_forgotten"] = draw.random() < 0.3
    if what == "freeze":
        args = {"seconds": draw.choice((0.05, 3.0))}
    return Step(0.0, what, 0, args)


def _evidence(seed: int, draw: Random) -> Plan:
    """Return a world in which thresholds are earned, shared and refuted."""
    servers, span_s = draw.choice((1, 2, 2)), draw.choice((8.0, 20.0))
    settings = {
        "hot_bytes": 1_000_000,
        "ttl_s": 3600.0,
        "ttl_jitter": 0.0,
        "deadline_ms": 25.0,
        "threshold": None,
        "mode": "on",
    }
    ambush = Step(0.0, "learn", 0, {"count": 30, "wrong": 1.0}) if draw.random() < 0.5 else None
    drifts_at = (2.0 if ambush else draw.choice((0.4, 0.6, 2.0))) * span_s
    steps = list(_faults(draw, "evidence", servers, span_s))
    if draw.random() < 0.5:
        args = {"slow": 0.9, "slow_s": 3.0, "loss": draw.choice((0.0, 0.2)), "seconds": 5.0}
        at = max(0.02, min(drifts_at, span_s) - draw.random() * 3.0)
        steps.append(Step(at, "weather", draw.randrange(servers), args))
    for _ in range(draw.randint(8, 20)):
        at = 0.02 + draw.random() * span_s
        wrong = draw.choice((0.3, 1.0)) if at > drifts_at else draw.choice((0.0, 0.0, 0.05))
        args = {"count": draw.choice((5, 10, 20)), "wrong": wrong}
        steps.append(Step(at, "learn", draw.randrange(servers), args))
    for _ in range(draw.choice((0, 0, 8))):
        at = 0.02 + draw.random() * span_s
        letters = "xyzxyzjk" if at > drifts_at else "jklmnopq"
        texts = [_variant(draw, "a", letters) for _ in range(6)]
        leaves = {"leaves_s": draw.random() * 0.02} if draw.random() < 0.2 else {}
        args = {"namespace": 0, "texts": texts, **leaves}
        steps += [Step(at, "request", draw.randrange(servers), args)]
        if draw.random() < 0.5:  # again, while the first is being computed or checked
            later = at + draw.random() * 0.02
            args = {"namespace": 0, "texts": texts[:2], "leaves_s": draw.random() * 0.01}
            steps += [Step(later, "request", draw.randrange(servers), args)]
    return Plan(seed, "evidence", servers, settings, in_order(steps), ambush)


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return steps by time."""
    return tuple(sorted(steps, key=lambda step: step.at))


def _texts(draw: Random, count: int) -> list[str]:
    return [" ".join(draw.choices(_LETTERS, k=draw.choice((3, 6, 9)))) for _ in range(count)]


def _variant(draw: Random, topic: str, letters: str) -> str:
    """Return one of many texts that differ in a word or two."""
    return f"{topic} b c d e f g h {draw.choice(letters)} {draw.choice(letters)}"


def _requests(draw: Random, servers: int, span_s: float, texts: list[str]) -> Iterator[Step]:
    namespaces = draw.choice((1, 2, 3))
    bursts = draw.random() < 0.5
    at = 0.02
    for _ in range(draw.randint(4, 14)):
        at = at if bursts and draw.random() < 0.5 else draw.random() * span_s + 0.02
        args: dict[str, Any] = {"namespace": draw.randrange(namespaces)}
        args["texts"] = draw.choices(texts, k=draw.choice((1, 1, 1, 3)))
        args |= _control(draw)
        if draw.random() < 0.1:
            args["leaves_s"] = draw.random() * 0.02
        yield Step(at, "request", draw.randrange(servers), args)


def _near_requests(draw: Random, servers: int, span_s: float) -> Iterator[Step]:
    """Ask for a few texts that are alike, again and again: hits of neighbours, and their checks."""
    texts = [_variant(draw, "a", "jk") for _ in range(3)]
    for _ in range(draw.randint(4, 8)):
        at, server = 0.02 + draw.random() * span_s, draw.randrange(servers)
        for _ in range(draw.choice((1, 3))):
            args: dict[str, Any] = {"namespace": 0, "texts": [draw.choice(texts)]}
            if draw.random() < 0.3:
                args |= {"no_cache": True, "leaves_s": draw.random() * 0.003}
            at += draw.random() * 0.006
            yield Step(at, "request", server, args)
        if draw.random() < 0.4:  # while a check waits for the machine
            yield Step(at + draw.random() * 0.004, "refuse", server, {"seconds": 0.02})


def _control(draw: Random) -> dict[str, Any]:
    control: dict[str, Any] = {}
    chance = draw.random()
    if chance < 0.08:
        control["no_store"] = True
    elif chance < 0.16:
        control["no_cache"] = True
    elif chance < 0.22:
        control["only_if_cached"] = True
    elif chance < 0.28:
        control["max_age_s"] = draw.choice((0.5, 2.0))
    if draw.random() < 0.2:
        control["ttl_s"] = draw.choice((0.5, 2.0))
    if draw.random() < 0.3:
        control["tags"] = (draw.choice(("t", "u")),)
    return control


def _faults(draw: Random, kind: Kind, servers: int, span_s: float) -> Iterator[Step]:
    def any_time() -> float:
        return 0.02 + draw.random() * span_s

    def some(what: str, most: int, **args: Any) -> Iterator[Step]:
        if draw.random() < 0.4:
            for _ in range(draw.randint(1, most)):
                drawn = {name: value(draw) for name, value in args.items()}
                yield Step(any_time(), what, draw.randrange(servers), drawn)

    if kind == "plain":
        yield from some(
            "purge",
            4,
            namespace=lambda draw: draw.randrange(2),
            scope=lambda draw: draw.choice(("namespace", "tag", "key")),
            is_forgotten=lambda draw: draw.random() < 0.3,
        )
        yield from some("clock", 2, seconds=lambda draw: draw.choice((-30.0, -2.0, 5.0, 600.0)))
        yield from some("redis clock", 1, seconds=lambda draw: draw.choice((-2.0, 0.3, 5.0)))
        yield from some("evict", 3)
    seconds = {"seconds": lambda draw: draw.choice((0.01, 0.2, 2.0, 6.0))}
    yield from some("kill", 2)
    yield from some("restart", 1)
    yield from some("freeze", 2, **seconds)
    yield from some("cut", 3)
    yield from some("partition", 2, **seconds)
    yield from some(
        "weather",
        2,
        slow=lambda draw: draw.choice((0.0, 0.3, 0.9)),
        slow_s=lambda draw: draw.choice((0.02, 0.5, 3.0)),
        loss=lambda draw: draw.choice((0.0, 0.05, 0.3)),
        seconds=lambda draw: draw.choice((0.5, 3.0, 10.0)),
    )
    yield from some("redis freezes", 2, **seconds)
    yield from some("machine", 2, slow_s=lambda draw: draw.choice((0.02, 0.3)), **seconds)
    yield from some("refuse", 2, **seconds)
    yield from some("fail", 1, **seconds)


def _embedded(seed: int, draw: Random) -> Plan:
    span_s = draw.choice((2.0, 60.0))
    settings = {
        "hot_bytes": draw.choice((0, 3_000)),
        "ttl_s": 3600.0,
        "ttl_jitter": 0.0,
        "deadline_ms": 25.0,
        "threshold": draw.choice((None, 0.75)),
        "mode": draw.choice(("off", "on")),
    }
    steps = []
    for _ in range(draw.randint(3, 8)):
        texts = _texts(draw, draw.choice((1, 6)))
        control = {**_control(draw), "tags": ("t",)}
        control.pop("ttl_s", None)
        args = {"namespace": 0, "texts": texts, **control}
        steps.append(Step(0.02 + draw.random() * span_s, "request", 0, args))
    for _ in range(draw.randint(1, 3)):
        scope = draw.choice(("namespace", "tag", "key"))
        at = span_s * (0.5 + draw.random())
        steps.append(Step(at, "purge", 0, {"namespace": 0, "scope": scope}))
    if draw.random() < 0.6:
        at = draw.random() * span_s
        pause_s = draw.choice((0.1, 3.0, 20.0))
        steps.append(Step(at, "disk", 0, {"pause_s": pause_s, "seconds": 150.0}))
    return Plan(seed, "embedded", 1, settings, in_order(steps))


def _chat(seed: int, draw: Random) -> Plan:
    """Return a world of completions: plain and streamed, with a judge that is asked."""
    servers, span_s = draw.choice((1, 2)), draw.choice((1.0, 6.0))
    settings = {
        "hot_bytes": draw.choice((0, 6_000, 1_000_000)),
        "ttl_s": draw.choice((1.0, 3600.0)),
        "ttl_jitter": 0.0,
        "deadline_ms": 25.0,
        "threshold": None,
        "mode": "off",
        "stale_s": draw.choice((0.0, 0.5)),
        "verdict": draw.choice(("ACCEPT", "REJECT")),
    }
    questions = [_variant(draw, "a", "jklmno") for _ in range(draw.choice((2, 6)))]
    steps = list(_faults(draw, "chat", servers, span_s))
    for _ in range(draw.randint(4, 12)):
        control = _control(draw)
        control.pop("max_age_s", None)
        args = {
            "namespace": draw.choice((0, 0, 1)),
            "question": draw.choice(questions),
            "stream": draw.random() < 0.5,
            **control,
        }
        if draw.random() < 0.15:
            args["leaves_s"] = draw.random() * 0.03
        at = 0.02 + draw.random() * span_s
        steps.append(Step(at, "chat", draw.randrange(servers), args))
        if draw.random() < 0.1:
            steps.append(Step(at + draw.random() * 0.1, "restart", draw.randrange(servers)))
    if draw.random() < 0.4:
        args = {
            "failing": draw.choice((0.0, 0.5)),
            "breaking": draw.choice((0.0, 0.5)),
            "slow_s": draw.choice((0.02, 1.0)),
            "seconds": draw.choice((0.3, 3.0)),
        }
        steps.append(Step(draw.random() * span_s, "upstream fails", 0, args))
    for _ in range(draw.choice((0, 0, 2))):
        at = 0.02 + draw.random() * span_s
        args = {"namespace": 0, "scope": draw.choice(("namespace", "tag"))}
        steps.append(Step(at, "purge", draw.randrange(servers), args))
    return Plan(seed, "chat", servers, settings, in_order(steps))
