"""Purges in Redis: numbered and announced in one transaction, then carried out entry by entry.

    cp:{shared}:generation  the newest purge's number: Redis' time in microseconds, or the next one
    cp:{shared}:floors      ZSET: scopes that were purged within the last hour, by that number
    cp:{shared}:running     SET: purges that are still removing entries

The braces keep them on one node of a cluster. A transaction cannot span nodes, so `cluster` has
another way to keep a purge and a write apart. `notices` has the announcements.

A write watches the floors, so that no write that began before a purge is executed after it. Lookups
check what they find against the running purges that this process knows of. Nearly always there are
none, and then lookups read only the record.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from cacheproxy.errors import StoreError
from cacheproxy.keys import hex_id
from cacheproxy.settings.sections import MOST_TTL_S
from cacheproxy.stores.protocol import Entry, Progress
from cacheproxy.stores.purges import Purges, Scope
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_name, value_of
from cacheproxy.stores.redis.index import ENTRY_PREFIX, NAMESPACE_FIELD, TAGS_FIELD
from cacheproxy.stores.redis.link import Ask, Command, RedisLink, raise_error_in
from cacheproxy.stores.redis.notices import (
    Finished,
    Notice,
    Purged,
    Replaced,
    key_scope,
    parse_notice,
    publish,
    scope_name,
    scopes_of,
    tag_scope,
)

_log = logging.getLogger(__name__)

GENERATION = "cp:{shared}:generation"
FLOORS = "cp:{shared}:floors"
_RUNNING = "cp:{shared}:running"

FLOORS_KEPT_S = 3600
"""The longest that work may take to reach the store: inference, and the write-back queue."""

_KEPT_S = int(1.1 * MOST_TTL_S)
"""How long a purge that was cut short stays in force: longer than any entry lives."""

_ASK_S = 10.0

_ATTEMPTS = 100
"""Of several purges at the same time one gets its number, and the others try again."""

_SCAN_NAMES = 512
_REMOVE_NAMES = 4
"""Names per round trip. Removing an entry from an index takes Redis half a millisecond (measured at
20,000 entries), and other clients wait meanwhile."""


class _Begun(NamedTuple):
    generation: int
    removed: int


class RedisPurges:
    """Makes purges, hears of those of other processes, and checks entries against both."""

    def __init__(self, link: RedisLink | ClusterLink, purges: Purges, own_id: str) -> None:
        self._link = link
        self._purges = purges
        self._own_id = own_id
        self._active: dict[str, int] = {}
        self._is_said = False

    @property
    def is_any_active(self) -> bool:
        """Whether lookups have to read namespace and tags, to check entries against purges."""
        return bool(self._active)

    def forbid(self, key: bytes, namespace: bytes, tags: bytes | None, generation: int) -> bool:
        """Return whether an active purge names the entry with these fields."""
        space = namespace.decode("latin-1")
        names = [space, key_scope(space, key)]
        if tags:
            names += [tag_scope(space, tag) for tag in tags.decode("latin-1").split(",")]
        return any(self._purged_at(name) > generation for name in names)

    def _purged_at(self, name: str) -> int:
        """Return the generation of the active purge of a scope; 0 if there is none."""
        return self._active.get(name, 0)

    async def catch_up(self) -> None:
        """Read the state of purges, since notices may have been missed.

        Raises:
            StoreError: Redis did not answer.
        """
        commands = [("MULTI",), ("GET", GENERATION), ("SMEMBERS", _RUNNING), ("EXEC",)]
        replies = await self._link.ask(commands, timeout_s=_ASK_S)
        for reply in replies:
            raise_error_in(reply)
        newest, running = replies[-1]
        self._active.clear()
        for generation, name in map(_parse_member, running):
            self._activate(name, generation)
        self._purges.missed(int(newest or 0))

    def _activate(self, name: str, generation: int) -> None:
        self._active[name] = max(generation, self._active.get(name, 0))

    def hear(self, message: bytes) -> None:
        """Handle a message on the channel; raises ValueError if it is no notice."""
        self._note(parse_notice(message))

    def _note(self, notice: Notice) -> None:
        if isinstance(notice, Purged):
            self._begun(notice)
            scope = Scope(notice.namespace_id, key=notice.key)
            self._purges.purged(scope, notice.generation)
        elif isinstance(notice, Finished):
            if self._active.get(notice.scope, 0) <= notice.generation:
                self._active.pop(notice.scope, None)
        elif notice.writer != self._own_id:
            self._purges.replaced(notice.keys)

    def _begun(self, notice: Purged) -> None:
        if notice.key is None:
            self._activate(notice.scope_name, notice.generation)

    async def tell_replaced(self, ask: Ask, keys: Sequence[bytes]) -> None:
        """Tell other processes that the entries of these keys were replaced.

        Raises:
            StoreError: Redis did not answer.
        """
        if not keys:
            return
        (reply,) = await ask([publish(Replaced(self._own_id, list(keys)))])
        if isinstance(reply, Exception) and not self._is_said:
            # The entries are written; this failure is no reason to write them again.
            self._is_said = True
            _log.warning("cannot tell other processes of replaced entries: %s", reply)

    async def admit(self, ask: Ask, entries: Sequence[Entry]) -> list[bool]:
        """Watch the floors, and return for each entry whether no purge forbids it.

        A transaction that follows on the same connection fails if another purge begins before it.

        Raises:
            StoreError: Redis did not answer.
        """
        floors = Floors(entries)
        watching, scores = await ask([("WATCH", FLOORS), floors.question])
        raise_error_in(watching)
        return floors.allow(scores)

    async def purge(self, scope: Scope, progress: Progress | None) -> int:
        """Remove the entries in scope whose work began before now; return how many they were.

        Entries that other processes compute meanwhile may be removed, too.

        Raises:
            StoreError: Redis did not answer; a purge that was announced stays in force.
        """
        removed = 0
        try:
            begun = await self._begin(scope)
        except StoreError as error:
            if error.kind != "oom":
                raise
            # A full Redis refuses the announcement but does remove entries, which makes room.
            removed = await self._remove(scope, 0, progress)
            begun = await self._begin(scope)
        removed += begun.removed
        if self._at_once(scope) is None:
            removed = await self._remove(scope, removed, progress)
            await self._finish(scope_name(scope), begun.generation)
        return removed

    def _at_once(self, scope: Scope) -> bytes | None:
        """Return the name of the entry that is removed with the announcement, if there is one."""
        return None if scope.key is None else entry_name(scope.key)

    async def _begin(self, scope: Scope) -> _Begun:
        for _ in range(_ATTEMPTS):
            async with self._link.conversation(timeout_s=_ASK_S) as ask:
                begun = await self._try_to_begin(ask, scope)
            if begun is not None:
                return begun
        raise StoreError("too many purges at the same time", "unavailable")

    async def _try_to_begin(self, ask: Ask, scope: Scope) -> _Begun | None:
        """Return None if another purge, or a write of the same key, intervened."""
        name = self._at_once(scope)
        reads: list[Command] = [("GET", GENERATION), ("TIME",)]
        if name is None:
            replies = await ask([("WATCH", GENERATION), *reads])
            is_there = False
        else:
            reads.append(("HGET", name, NAMESPACE_FIELD))
            replies = await ask([("WATCH", GENERATION, name), *reads])
            is_there = value_of(replies[3]) == hex_id(scope.namespace_id).encode()
        for reply in replies[:3]:
            raise_error_in(reply)
        now_us = int(replies[2][0]) * 1_000_000 + int(replies[2][1])
        generation = max(now_us, 1 + int(replies[1] or 0))
        removal: list[Command] = [("DEL", name)] if name is not None and is_there else []
        commands = [*removal, *_announce(scope, generation, now_us, is_running=name is None)]
        replies = await ask([("MULTI",), *commands, ("EXEC",)])
        for reply in replies:
            raise_error_in(reply)
        done = replies[-1]
        if done is None:
            return None
        # Noted here as well, because the subscription may be down and miss the announcement.
        self._note(Purged.of(scope, generation))
        return _Begun(generation, done[0] if removal else 0)

    async def count_namespaces(self) -> Counter[str]:
        """Count every entry, by the `hex_id` of its namespace.

        Raises:
            StoreError: Redis did not answer.
        """
        counts = Counter[str]()
        async for names in self._entries():
            commands = [("HGET", name, NAMESPACE_FIELD) for name in names]
            replies = map(value_of, await self._link.ask(commands, timeout_s=_ASK_S))
            counts.update(reply.decode("latin-1") for reply in replies if reply is not None)
        return counts

    async def _remove(self, scope: Scope, removed: int, progress: Progress | None) -> int:
        async for names in self._entries(scope.key):
            named = await self._named(names, scope)
            for start in range(0, len(named), _REMOVE_NAMES):
                commands = [("DEL", name) for name in named[start : start + _REMOVE_NAMES]]
                for reply in await self._link.ask(commands, timeout_s=_ASK_S):
                    raise_error_in(reply)
                    removed += reply
            if progress is not None:
                progress(removed)
        return removed

    async def _entries(self, key: bytes | None = None) -> AsyncIterator[Sequence[bytes]]:
        """Yield the names of all entries in parts, or of one key's; some may come twice."""
        if key is not None:
            yield [entry_name(key)]
            return
        for part in self._link.parts:
            cursor = None
            while cursor != 0:
                scan = ("SCAN", cursor or 0, "MATCH", ENTRY_PREFIX + b"*", "COUNT", _SCAN_NAMES)
                (reply,) = await part.ask([scan], timeout_s=_ASK_S)
                raise_error_in(reply)
                cursor = int(reply[0])
                if reply[1]:
                    yield list(dict.fromkeys(reply[1]))

    async def _named(self, names: Sequence[bytes], scope: Scope) -> list[bytes]:
        """Return the names of those entries that are in scope."""
        commands = [("HMGET", name, NAMESPACE_FIELD, TAGS_FIELD) for name in names]
        replies = await self._link.ask(commands, timeout_s=_ASK_S)
        namespace = hex_id(scope.namespace_id).encode()
        tag = None if scope.tag is None else hex_id(scope.tag).encode()

        def is_named(reply: Any) -> bool:
            fields = value_of(reply)
            if fields is None or fields[0] != namespace:
                return False
            return tag is None or tag in (fields[1] or b"").split(b",")

        return [name for name, reply in zip(names, replies, strict=True) if is_named(reply)]

    async def _finish(self, name: str, generation: int) -> None:
        members = [
            member
            for member in await self._ask("SMEMBERS", _RUNNING)
            if (found := _parse_member(member)).name == name and found.generation <= generation
        ]
        if members:
            await self._ask("SREM", _RUNNING, *members)
        notice = Finished(generation, name)
        await self._ask(*publish(notice))
        self._note(notice)

    async def _ask(self, *command: str | bytes | int) -> Any:
        (reply,) = await self._link.ask([command], timeout_s=_ASK_S)
        raise_error_in(reply)
        return reply


class _Member(NamedTuple):
    """A running purge: its number, and the name of its scope."""

    generation: int
    name: str


def _parse_member(member: bytes) -> _Member:
    generation, _, name = member.decode("latin-1").partition(" ")
    return _Member(int(generation), name)


def _announce(scope: Scope, generation: int, now_us: int, *, is_running: bool) -> list[Command]:
    """Return the commands that put a purge into force and tell of it."""
    name = scope_name(scope)
    commands: list[Command] = [
        ("SET", GENERATION, generation, "EX", _KEPT_S),
        ("ZADD", FLOORS, generation, name),
        ("ZREMRANGEBYSCORE", FLOORS, 0, now_us - FLOORS_KEPT_S * 1_000_000),
        ("EXPIRE", FLOORS, FLOORS_KEPT_S),
    ]
    if is_running:
        commands += [("SADD", _RUNNING, f"{generation} {name}"), ("EXPIRE", _RUNNING, _KEPT_S)]
    return [*commands, publish(Purged.of(scope, generation))]


class Floors:
    """The question whether purges forbid entries, and what its answer means."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._scopes = [scopes_of(entry) for entry in entries]
        self._names = sorted({name for each in self._scopes for name in each})

    @property
    def question(self) -> Command:
        """The command."""
        return "ZMSCORE", FLOORS, *self._names

    def allow(self, scores: Any) -> list[bool]:
        """Return of each entry whether no purge forbids it.

        Raises:
            StoreError: the answer is an error.
        """
        raise_error_in(scores)
        floors = {
            name: int(float(score))
            for name, score in zip(self._names, scores, strict=True)
            if score is not None
        }
        return [
            all(floors.get(name, 0) <= entry.generation for name in each)
            for entry, each in zip(self._entries, self._scopes, strict=True)
        ]
