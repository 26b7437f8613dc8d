"""Purges in Redis: numbered and announced in one transaction, then carried out entry by entry.

`floors` has what is kept of them. A transaction cannot span nodes of a cluster, so `cluster` has
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
from cacheproxy.stores.protocol import Entry, Progress
from cacheproxy.stores.purges import PurgeNote, Purges, Scope
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_name, value_of
from cacheproxy.stores.redis.floors import (
    FLOORS,
    GENERATION,
    NOTHING,
    READ_SINCE,
    RUNNING,
    SINCE,
    Floors,
    announce,
    number_in,
    running_in,
    since_in,
)
from cacheproxy.stores.redis.index import ENTRY_PREFIX, NAMESPACE_FIELD, TAGS_FIELD
from cacheproxy.stores.redis.link import Ask, Command, RedisLink, raise_error_in
from cacheproxy.stores.redis.notices import (
    Finished,
    Notice,
    Purged,
    Replaced,
    key_scope,
    note_of,
    parse_notice,
    publish,
    scope_name,
    tag_scope,
)

_log = logging.getLogger(__name__)

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
        commands = [READ_SINCE, ("GET", GENERATION), ("SMEMBERS", RUNNING)]
        replies = await self._link.ask([("MULTI",), *commands, ("EXEC",)], timeout_s=_ASK_S)
        for reply in replies[:-1]:
            raise_error_in(reply)
        since, newest, running = replies[-1]
        raise_error_in([since, running])
        self._active.clear()
        for generation, name in running_in(running):
            self._activate(name, generation)
        number = number_in(newest)
        self._purges.missed(max(number, since_in(since) or 0))
        if since_in(since) is None or not number:
            try:
                await self._restore()
            except StoreError as error:  # a replica refuses it, for one
                _log.debug("cannot begin the floors of purges: %s", error)

    async def _restore(self) -> None:
        """Write the number of the newest purge, and begin the floors if there are none.

        Raises:
            StoreError: Redis did not answer, or refused it.
        """
        if self._purges.generation:
            _log.warning("Redis has lost its notes of purges: evicted, flushed, or not saved")
        await self.purge(NOTHING, None)

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
            known = self._active.get(notice.scope, 0)
            if known < notice.generation:
                # Never heard of it: the note of it was gone when this process caught up.
                self._purges.missed(notice.generation)
            if known <= notice.generation:
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
        return await self._judge(floors, scores)

    async def _judge(self, floors: Floors, scores: Any) -> list[bool]:
        raise_error_in(scores)
        since = since_in(scores)
        if since is None:
            await self._restore()
        elif since > self._purges.generation:
            self._purges.missed(since)  # the notice is on its way, or was not heard
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
        watched = (GENERATION, FLOORS) if name is None else (GENERATION, FLOORS, name)
        reads: list[Command] = [("TIME",), READ_SINCE, ("GET", GENERATION)]
        if name is not None:
            reads.append(("HGET", name, NAMESPACE_FIELD))
        if scope is NOTHING:
            reads.append(("SCAN", 0, "COUNT", 1))
        replies = await ask([("WATCH", *watched), *reads])
        for reply in replies[:3]:
            raise_error_in(reply)
        is_there = name is not None and value_of(replies[4]) == hex_id(scope.namespace_id).encode()
        now_us = int(replies[1][0]) * 1_000_000 + int(replies[1][1])
        since = since_in(replies[2])
        known = max(number_in(replies[3]), self._purges.generation, since or 0)
        generation = max(now_us, 1 + known)
        if since is None:
            is_new = scope is NOTHING and not known and replies[-1] == [b"0", []]
            since = 0 if is_new else generation
        removal: list[Command] = [("DEL", name)] if name is not None and is_there else []
        is_running = name is None
        commands = [*removal, *announce(scope, since, generation, now_us, is_running=is_running)]
        replies = await ask([("MULTI",), *commands, ("EXEC",)])
        for reply in replies:
            raise_error_in(reply)
        done = replies[-1]
        if done is None:
            return None
        # Noted here as well, because the subscription may be down and miss the announcement.
        self._note(Purged.of(scope, generation))
        return _Begun(generation, done[0] if removal else 0)

    async def purged_since(self, generation: int) -> list[PurgeNote]:
        """Return the purges with a higher generation that are still noted.

        Raises:
            StoreError: Redis did not answer.
        """
        after = f"({generation}"
        found = await self._ask("ZRANGEBYSCORE", FLOORS, after, "+inf", "WITHSCORES")
        noted = zip(found[::2], found[1::2], strict=True)
        return [
            note
            for name, score in noted
            if name != SINCE.encode()
            and (note := note_of(name.decode("latin-1"), int(float(score)))) is not None
        ]

    async def count_namespaces(self) -> Counter[str]:
        """Count every entry, by the `hex_id` of its namespace.

        Raises:
            StoreError: Redis did not answer.
        """
        counts = Counter[str]()
        async for names in self.names():
            commands = [("HGET", name, NAMESPACE_FIELD) for name in names]
            replies = map(value_of, await self._link.ask(commands, timeout_s=_ASK_S))
            counts.update(reply.decode("latin-1") for reply in replies if reply is not None)
        return counts

    async def _remove(self, scope: Scope, removed: int, progress: Progress | None) -> int:
        async for names in self.names(scope.key):
            named = await self._named(names, scope)
            for start in range(0, len(named), _REMOVE_NAMES):
                commands = [("DEL", name) for name in named[start : start + _REMOVE_NAMES]]
                for reply in await self._link.ask(commands, timeout_s=_ASK_S):
                    raise_error_in(reply)
                    removed += reply
            if progress is not None:
                progress(removed)
        return removed

    async def names(self, key: bytes | None = None) -> AsyncIterator[Sequence[bytes]]:
        """Yield the names of all entries in parts, or of one key's; some may come twice.

        Raises:
            StoreError: Redis did not answer.
        """
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
        members = running_in(await self._ask("SMEMBERS", RUNNING))
        done = [str(one) for one in members if one.name == name and one.generation <= generation]
        if done:
            await self._ask("SREM", RUNNING, *done)
        notice = Finished(generation, name)
        await self._ask(*publish(notice))
        self._note(notice)

    async def _ask(self, *command: str | bytes | int) -> Any:
        (reply,) = await self._link.ask([command], timeout_s=_ASK_S)
        raise_error_in(reply)
        return reply
