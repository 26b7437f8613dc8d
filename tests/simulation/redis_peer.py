"""A Redis as its clients see it: the commands that the store uses, one after the other.

Each command is atomic, as are those between MULTI and EXEC; commands of several connections
intervene between all others. Keys expire by the clock of this machine.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

import numpy as np
from redis import exceptions

from tests.simulation.world import EPOCH_S, World

_KNN = re.compile(r"\(@namespace:\{(\w+)\}(?: @tags:\{(\w+)\})?\)=>\[KNN (\d+) @(\S+) ")

_FLOORS = b"cp:{shared}:floors"


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@cache
def _method_of(command: str) -> str:
    return f"_{command.lower().replace('.', '_')}_"


class Session:
    """What Redis knows of one connection."""

    def __init__(self, push: Callable[[Any], None]) -> None:
        """Send messages of channels with `push`."""
        self.push = push
        self.watched: dict[bytes, int] = {}
        self.queued: list[Sequence[Any]] | None = None
        self.channel: bytes | None = None


class RedisPeer:
    """The data, and what commands do with it.

    Attributes:
        clock_offset_s: how far its clock is ahead of the world's.
        on_write: is told of each HSET (name, fields) and SET (name, value) that takes effect.
        floors_began_again_at: when a first floor of purges was written after all had been evicted.
    """

    def __init__(self, world: World) -> None:
        self.clock_offset_s = 0.0
        self.on_write: Callable[[bytes, Any], None] = lambda name, value: None
        self.commands = 0
        self.floors_began_again_at = -math.inf
        self._has_lost_floors = False
        self._world = world
        self._data: dict[bytes, Any] = {}
        self._expiry: dict[bytes, float] = {}
        self._versions: dict[bytes, int] = {}
        self._sessions: list[Session] = []
        self._cursors: dict[int, bytes] = {}
        self._numbers = count(1)

    @property
    def now(self) -> float:
        """Unix time by its clock."""
        return EPOCH_S + self._world.now + self.clock_offset_s

    def entries(self) -> dict[bytes, dict[bytes, bytes]]:
        """Return the live entries, by name."""
        names = [name for name in self._data if name.startswith(b"cp:e3:")]
        return {name: value for name in names if (value := self._get(name)) is not None}

    def notes_of_purges(self) -> list[bytes]:
        """Return the names of the keys that purges are noted in."""
        return [name for name in sorted(self._data) if name.startswith(b"cp:{shared}:")]

    def forget(self, name: bytes) -> None:
        """Evict a key, as under `maxmemory`."""
        if self._data.pop(name, None) is not None:
            self._has_lost_floors |= name == _FLOORS
            self._expiry.pop(name, None)
            self._touch(name)

    def leave(self, session: Session) -> None:
        """Forget a connection that is closed."""
        if session in self._sessions:
            self._sessions.remove(session)

    def run(self, session: Session, command: Sequence[Any]) -> Any:
        """Return the reply to a command."""
        self.commands += 1
        name = command[0]
        if session.queued is not None and name not in ("EXEC", "DISCARD"):
            session.queued.append(command)
            return b"QUEUED"
        try:
            return getattr(self, _method_of(name))(session, *command[1:])
        except exceptions.ResponseError as error:
            return error

    def _get(self, name: bytes) -> Any:
        expires_at = self._expiry.get(name)
        if expires_at is not None and expires_at <= self.now:
            self._data.pop(name, None)
            del self._expiry[name]
            self._touch(name)
        return self._data.get(name)

    def _set(self, name: bytes, value: Any) -> None:
        self._data[name] = value
        self._touch(name)

    def _touch(self, name: bytes) -> None:
        self._versions[name] = next(self._numbers)

    # Connections and transactions.

    def _ping_(self, session, *args):
        return [b"pong", b""] if session.channel else b"PONG"

    def _subscribe_(self, session, channel):
        session.channel = _bytes(channel)
        self._sessions.append(session)
        return [b"subscribe", session.channel, 1]

    def _publish_(self, session, channel, message):
        heard = [one for one in self._sessions if one.channel == _bytes(channel)]
        for one in heard:
            one.push([b"message", one.channel, _bytes(message)])
        return len(heard)

    def _watch_(self, session, *names):
        for name in map(_bytes, names):
            self._get(name)
            session.watched.setdefault(name, self._versions.get(name, 0))
        return b"OK"

    def _unwatch_(self, session):
        session.watched.clear()
        return b"OK"

    def _multi_(self, session):
        session.queued = []
        return b"OK"

    def _exec_(self, session):
        commands, session.queued = session.queued, None
        watched, session.watched = session.watched, {}
        for name in watched:
            self._get(name)
        if any(self._versions.get(name, 0) != seen for name, seen in watched.items()):
            return None
        return [self.run(session, command) for command in commands]

    def _info_(self, session, section):
        return b"role:master\r\nmaster_replid:0\r\n"  # it has no replicas

    def _time_(self, session):
        now = self.now
        return [b"%d" % int(now), b"%d" % int(now % 1 * 1e6)]

    # Keys.

    def _get_(self, session, name):
        return self._get(_bytes(name))

    def _set_(self, session, name, value, *options):
        name, value = _bytes(name), _bytes(value)
        self._set(name, value)
        self._expiry.pop(name, None)
        options = list(options)
        while options:
            option, number, *options = options
            expires_at = int(number) / 1000 if option == "PXAT" else self.now + int(number)
            self._expiry[name] = expires_at
        self.on_write(name, value)
        return b"OK"

    def _del_(self, session, *names):
        removed = 0
        for name in map(_bytes, names):
            if self._get(name) is not None:
                self.forget(name)
                removed += 1
        return removed

    def _exists_(self, session, *names):
        return sum(self._get(_bytes(name)) is not None for name in names)

    def _expire_(self, session, name, seconds):
        return self._expire_at(_bytes(name), self.now + int(seconds))

    def _pexpireat_(self, session, name, milliseconds):
        return self._expire_at(_bytes(name), int(milliseconds) / 1000)

    def _expire_at(self, name, at):
        if self._get(name) is None:
            return 0
        self._expiry[name] = at
        self._touch(name)
        self._get(name)
        return 1

    def _scan_(self, session, cursor, *options):
        after = self._cursors.pop(int(cursor), b"")
        prefix = b"cp:e3:" if "MATCH" in options else b""
        names = sorted(name for name in self._data if name > after and name.startswith(prefix))
        part = [name for name in names[:8] if self._get(name) is not None]
        if len(names) <= 8:
            return [b"0", part]
        cursor = next(self._numbers)
        self._cursors[cursor] = names[7]
        return [b"%d" % cursor, part]

    # Hashes, sets and sorted sets.

    def _hset_(self, session, name, *fields):
        name = _bytes(name)
        held = dict(self._get(name) or {})
        held.update(zip(map(_bytes, fields[::2]), map(_bytes, fields[1::2]), strict=True))
        self._set(name, held)
        self.on_write(name, held)
        return len(fields) // 2

    def _hget_(self, session, name, field):
        return (self._get(_bytes(name)) or {}).get(_bytes(field))

    def _hmget_(self, session, name, *fields):
        held = self._get(_bytes(name)) or {}
        return [held.get(_bytes(field)) for field in fields]

    def _zadd_(self, session, name, *scored):
        name, only_higher = _bytes(name), scored[:2] == ("GT", "CH")
        scored = scored[2:] if only_higher else scored
        held, changed = dict(self._get(name) or {}), 0
        for score, member in zip(map(float, scored[::2]), map(_bytes, scored[1::2]), strict=True):
            if not only_higher or score > held.get(member, -1):
                held[member], changed = score, changed + 1
        self._set(name, held)
        if name == _FLOORS and self._has_lost_floors:
            self._has_lost_floors, self.floors_began_again_at = False, self._world.now
        return changed

    def _zmscore_(self, session, name, *members):
        held = self._get(_bytes(name)) or {}
        scores = [held.get(_bytes(member)) for member in members]
        return [None if score is None else b"%r" % score for score in scores]

    def _zrange_(self, session, name, *all_with_scores):
        held = self._get(_bytes(name)) or {}
        return [part for member, score in held.items() for part in (member, b"%r" % score)]

    def _zremrangebyscore_(self, session, name, low, high):
        name = _bytes(name)
        held = self._get(name) or {}
        left = {member: score for member, score in held.items() if not low <= score <= high}
        if len(left) < len(held):
            self._set(name, left)
        return len(held) - len(left)

    def _sadd_(self, session, name, *members):
        name = _bytes(name)
        self._set(name, {*(self._get(name) or ()), *map(_bytes, members)})
        return len(members)

    def _srem_(self, session, name, *members):
        name = _bytes(name)
        self._set(name, {*(self._get(name) or ())} - {*map(_bytes, members)})
        return len(members)

    def _smembers_(self, session, name):
        return sorted(self._get(_bytes(name)) or ())

    # Lookups by probe.

    def _ft_search_(self, session, index, query, *options):
        if "{none}" in query:
            return [0]  # a look whether there is an index
        namespace, tag, depth, field = _KNN.match(query).groups()
        probe = np.frombuffer(options[-1], "<f2").astype(np.float32)
        field = field.encode()
        found = []
        for name, held in self.entries().items():
            if held.get(b"namespace") != namespace.encode() or field not in held:
                continue
            if tag and tag.encode() not in held.get(b"tags", b"").split(b","):
                continue
            other = np.frombuffer(held[field], "<f2").astype(np.float32)
            found.append((-float(probe @ other), name, held))
        found.sort(key=lambda one: one[:2])
        reply: list[Any] = [len(found)]
        for _, name, held in found[: int(depth)]:
            fields = (b"record", b"namespace", b"tags", field)
            reply += [name, [part for key in fields if key in held for part in (key, held[key])]]
        return reply
