"""What Redis keeps of purges: which numbers they have, what they forbid, and which still run.

    cp:{shared}:generation  the newest purge's number: Redis' time in microseconds, or the next one
    cp:{shared}:floors      ZSET: scopes that were purged within the last hour, by that number, and
                            since when they are complete
    cp:{shared}:running     SET: purges that are still removing entries

The braces keep them on one node of a cluster. Redis may evict any of them, or come back empty. So
one member of the floors says from which number on they are complete. Where it is missing, they are
begun anew, by a purge of nothing, and no work that began before is written: it may be of something
that was purged. Only a Redis without any key, seen by a process that has heard of no purge, is new.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redis import exceptions

from cacheproxy.settings.sections import MOST_TTL_S
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.link import Command, raise_error_in
from cacheproxy.stores.redis.purging.notices import Purged, publish, scope_name, scopes_of

_log = logging.getLogger(__name__)

GENERATION = "cp:{shared}:generation"
FLOORS = "cp:{shared}:floors"
RUNNING = "cp:{shared}:running"

FLOORS_KEPT_S = 3600
"""The longest that work may take to reach the store: inference, and the write-back queue."""

NOTHING = Scope("", key=bytes(32))
SINCE = scope_name(NOTHING)
"""The member of the floors that says since which number they are complete."""

_KEPT_S = int(1.1 * MOST_TTL_S)
"""How long the keys are kept: longer than any entry, so that `volatile-ttl` evicts them last, and a
purge that was cut short stays in force."""

_MOST = 2**53
"""Beyond this the score of a floor would not be exact."""


class RunningPurge(NamedTuple):
    """A running purge: its number, and the name of its scope."""

    generation: int
    name: str

    def __str__(self) -> str:
        return f"{self.generation} {self.name}"


def running_in(members: Iterable[bytes]) -> list[RunningPurge]:
    """Return the running purges, without what is none."""
    split = [member.decode("latin-1").partition(" ") for member in members]
    return [RunningPurge(int(number), name) for number, _, name in split if number.isdecimal()]


def number_in(reply: Any) -> int:
    """Return the newest purge's number; 0 if none is stored, or what is stored cannot be one.

    The next purge replaces what is stored.

    Raises:
        StoreError: the reply is an error.
    """
    if isinstance(reply, exceptions.ResponseError) and "WRONGTYPE" not in str(reply):
        raise_error_in(reply)
    if isinstance(reply, bytes) and reply.isdigit() and len(reply) < 20 and int(reply) < _MOST:
        return int(reply)
    if reply is not None:
        _log.warning(
            "%s in Redis holds no number of a purge; the next purge replaces it", GENERATION
        )
    return 0


READ_SINCE: Command = ("ZMSCORE", FLOORS, SINCE)
READ_FLOORS: Command = ("ZRANGE", FLOORS, 0, -1, "WITHSCORES")


def floors_in(reply: Sequence[bytes]) -> dict[str, int]:
    """Return the numbers of the purges in force, by the names of their scopes, from READ_FLOORS."""
    names = (name.decode("latin-1") for name in reply[::2])
    return {name: int(float(at)) for name, at in zip(names, reply[1::2], strict=True)}


def since_in(scores: Sequence[bytes | None]) -> int | None:
    """Return the first score, since when the floors are complete; None if that is not known."""
    return None if scores[0] is None else int(float(scores[0]))


def announce(
    scope: Scope, since: int, generation: int, now_us: int, *, is_running: bool
) -> list[Command]:
    """Return the commands that put a purge into force and tell of it."""
    name = scope_name(scope)
    floors = {name: generation, SINCE: since}  # the purge of nothing has no other floor
    commands: list[Command] = [
        ("SET", GENERATION, generation, "EX", _KEPT_S),
        ("ZREMRANGEBYSCORE", FLOORS, 0, now_us - FLOORS_KEPT_S * 1_000_000),
        ("ZADD", FLOORS, *(part for name, score in floors.items() for part in (score, name))),
        ("EXPIRE", FLOORS, _KEPT_S),
    ]
    if is_running:
        running = str(RunningPurge(generation, name))
        commands += [("SADD", RUNNING, running), ("EXPIRE", RUNNING, _KEPT_S)]
    return [*commands, publish(Purged.of(scope, generation))]


def announce_again(purges: Mapping[str, int], newest: int) -> list[Command]:
    """Return the commands that put purges into force again, which a new master does not know.

    The second reply says how many of them were not in force.

    Args:
        purges: their numbers, by the names of their scopes; not empty.
        newest: the highest number that is known.
    """
    scored = [part for name, number in purges.items() for part in (number, name)]
    running = [str(RunningPurge(number, name)) for name, number in purges.items()]
    return [
        ("SET", GENERATION, newest, "EX", _KEPT_S),
        ("ZADD", FLOORS, "GT", "CH", *scored),
        ("EXPIRE", FLOORS, _KEPT_S),
        ("SADD", RUNNING, *running),
        ("EXPIRE", RUNNING, _KEPT_S),
    ]


class Floors:
    """The question whether purges forbid entries, and what its answer means."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._scopes = [[SINCE, *scopes_of(entry)] for entry in entries]
        self._names = [SINCE, *sorted({name for each in self._scopes for name in each} - {SINCE})]

    @property
    def question(self) -> Command:
        """The command; the first score of its answer tells since when the floors are complete."""
        return "ZMSCORE", FLOORS, *self._names

    def allow(self, scores: Sequence[bytes | None], purged_at: Callable[[str], int]) -> list[bool]:
        """Return of each entry whether no purge forbids it; False if the floors were lost.

        `purged_at` gives the number of the newest purge of a scope that this process knows of.
        """
        if scores[0] is None:
            return [False] * len(self._entries)
        floors = {
            name: max(int(float(score or 0)), purged_at(name))
            for name, score in zip(self._names, scores, strict=True)
        }
        return [
            all(floors[name] <= entry.generation for name in each)
            for entry, each in zip(self._entries, self._scopes, strict=True)
        ]
