"""Purges in Redis: numbered and announced in one transaction, then carried out entry by entry.

`floors` has what is kept of them. A transaction cannot span nodes of a cluster, so `cluster` has
another way to keep a purge and a write apart. `notices` has the announcements.

A write watches the floors, so that no write that began before a purge is executed after it. Lookups
check what they find against the purges that this process knows of (`known`). Mostly there were none
within the last hour, and then lookups read only the record.

A purge is acknowledged once the replicas have it (`replicas`). What a new master does not know of
nevertheless, because it lagged behind, every process that does know tells it on reconnection.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cacheproxy.concurrency.background import BackgroundTasks
from cacheproxy.errors import StoreError
from cacheproxy.keys import hex_id
from cacheproxy.stores.protocol import Entry, Progress
from cacheproxy.stores.purges import PurgeNote, Purges, Scope
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_name, value_of
from cacheproxy.stores.redis.index import NAMESPACE_FIELD
from cacheproxy.stores.redis.link import Ask, Command, RedisLink, raise_error_in
from cacheproxy.stores.redis.purging.floors import (
    FLOORS,
    GENERATION,
    NOTHING,
    READ_FLOORS,
    READ_SINCE,
    RUNNING,
    SINCE,
    Floors,
    announce,
    announce_again,
    floors_in,
    number_in,
    running_in,
    since_in,
)
from cacheproxy.stores.redis.purging.known import KnownPurges
from cacheproxy.stores.redis.purging.notices import (
    Finished,
    Notice,
    Purged,
    Replaced,
    note_of,
    parse_notice,
    publish,
    scope_name,
)
from cacheproxy.stores.redis.purging.removal import Removal, scopes_in
from cacheproxy.stores.redis.purging.replicas import Replicas

_log = logging.getLogger(__name__)

_ASK_S = 10.0

_ATTEMPTS = 100
"""Of several purges at the same time one gets its number, and the others try again."""


class _Begun(NamedTuple):
    generation: int
    removed: int


class RedisPurges:
    """Makes purges, hears of those of other processes, and checks entries against both.

    Attributes:
        removal: carries them out.
    """

    def __init__(self, link: RedisLink | ClusterLink, purges: Purges, own_id: str) -> None:
        self._link = link
        self._purges = purges
        self._own_id = own_id
        self.removal = Removal(link)
        self._known = KnownPurges()
        self._replicas = Replicas()
        self._repeating = BackgroundTasks()
        self._is_said = False

    async def close(self) -> None:
        """Stop repeating purges."""
        await self._repeating.stop()

    @property
    def is_any_known(self) -> bool:
        """Whether lookups have to read namespace and tags, to check entries against purges."""
        return self._known.is_any

    def forbid(self, key: bytes, namespace: bytes, tags: bytes | None, generation: int) -> bool:
        """Return whether a purge that is known names the entry with these fields."""
        purged_at = self._known.purged_at
        return any(purged_at(name) > generation for name in scopes_in(key, namespace, tags))

    async def catch_up(self) -> None:
        """Read the state of purges, since notices may have been missed; tell what is missing in it.

        Raises:
            StoreError: Redis did not answer.
        """
        commands = [("TIME",), READ_FLOORS, ("GET", GENERATION), ("SMEMBERS", RUNNING)]
        replies = await self._link.ask([("MULTI",), *commands, ("EXEC",)], timeout_s=_ASK_S)
        for reply in replies[:-1]:
            raise_error_in(reply)
        now, noted, newest, running = replies[-1]
        raise_error_in([now, running])
        raise_error_in(noted)
        floors = floors_in(noted)
        self._known.none_runs()
        for generation, name in running_in(running):
            self._known.begun(name, generation)
        for name, generation in floors.items():
            self._known.remember(name, generation)
        number, since = number_in(newest), floors.get(SINCE)
        self._purges.missed(max(number, since or 0))
        try:
            if lost := self._known.missing_in(floors, _us(now)):
                await self._repeat(lost)
            if since is None or not number:
                await self._restore()
        except StoreError as error:  # a replica refuses it, for one
            _log.debug("cannot tell Redis of purges: %s", error)
        looks = (self._replicas.look(part) for part in self._link.tagged_parts())
        await asyncio.gather(*looks, return_exceptions=True)

    async def _repeat(self, lost: Mapping[str, int]) -> None:
        """Put purges into force again; the first process that does so carries them out.

        Raises:
            StoreError: Redis did not answer, or refused it.
        """
        _log.warning("Redis does not know of %d purges, which are repeated", len(lost))
        for _ in range(_ATTEMPTS):
            async with self._link.conversation(timeout_s=_ASK_S) as ask:
                watching, known = await ask([("WATCH", GENERATION), ("GET", GENERATION)])
                raise_error_in(watching)
                newest = max(number_in(known), self._purges.generation)
                commands = announce_again(lost, newest)
                replies = await ask([("MULTI",), *commands, ("EXEC",)])
            for reply in replies:
                raise_error_in(reply)
            if replies[-1] is not None:
                break
        else:
            raise _too_many()
        for name, generation in lost.items():
            self._known.begun(name, generation)
        if replies[-1][1]:
            self._repeating.start(self._carry_out(lost))

    async def _carry_out(self, lost: Mapping[str, int]) -> None:
        notes = [note_of(name, generation) for name, generation in lost.items()]
        keys = [note.key for note in notes if note is not None and note.key is not None]
        try:
            removed = await self.removal.remove(
                lost.keys(), keys if len(keys) == len(lost) else None, 0, None
            )
            await self._finish(lost)
        except StoreError as error:
            # They stay in force, noted as running.
            _log.warning("purges could not be repeated to the end: %s", error)
        else:
            _log.info("%d purges are repeated: %d entries were there again", len(lost), removed)

    async def _restore(self) -> None:
        """Write the number of the newest purge, and begin the floors if there are none.

        Raises:
            StoreError: Redis did not answer, or refused it.
        """
        if self._purges.generation:
            _log.warning("Redis has lost its notes of purges: evicted, flushed, or not saved")
        await self._begin(NOTHING)

    def hear(self, message: bytes) -> None:
        """Handle a message on the channel; raises ValueError if it is no notice."""
        self._note(parse_notice(message))

    def _note(self, notice: Notice) -> None:
        if isinstance(notice, Purged):
            self._begun(notice)
            scope = Scope(notice.namespace_id, key=notice.key)
            self._purges.purged(scope, notice.generation)
        elif isinstance(notice, Finished):
            known = self._known.running_at(notice.scope)
            if known < notice.generation:
                # Never heard of it: the note of it was gone when this process caught up.
                self._purges.missed(notice.generation)
            if known <= notice.generation:
                self._known.ended(notice.scope)
        elif notice.writer != self._own_id:
            self._purges.replaced(notice.keys)

    def _begun(self, notice: Purged) -> None:
        if notice.key is None:
            self._known.begun(notice.scope_name, notice.generation)
        else:
            self._known.remember(notice.scope_name, notice.generation)

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
        return floors.allow(scores, self._known.purged_at)

    async def purge(self, scope: Scope, progress: Progress | None) -> int:
        """Remove the entries in scope whose work began before now; return how many they were.

        Entries that other processes compute meanwhile may be removed, too.

        Raises:
            StoreError: Redis did not answer, or replicas did not confirm it; a purge that was
                announced stays in force.
        """
        removed, name, keys = 0, scope_name(scope), None if scope.key is None else [scope.key]
        try:
            begun = await self._begin(scope)
        except StoreError as error:
            if error.kind != "oom":
                raise
            # A full Redis refuses the announcement but does remove entries, which makes room.
            removed = await self.removal.remove({name}, keys, 0, progress)
            begun = await self._begin(scope)
        removed += begun.removed
        is_done = self._at_once(scope) is not None
        if not is_done:
            removed = await self.removal.remove({name}, keys, removed, progress)
        await asyncio.gather(*(self._replicas.confirm(part) for part in self._link.tagged_parts()))
        (noted,) = await self._ask("ZMSCORE", FLOORS, name)
        if noted is None or int(float(noted)) < begun.generation:
            raise StoreError("Redis: another master took over meanwhile", "unavailable")
        if not is_done:
            await self._finish({name: begun.generation})
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
        raise _too_many()

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
        now_us = _us(replies[1])
        since = since_in(replies[2])
        known = max(number_in(replies[3]), self._purges.generation, since or 0)
        generation = max(now_us, 1 + known)
        if since is None:
            is_new = scope is NOTHING and not known and replies[-1] == [b"0", []]
            since = 0 if is_new else generation
        removal: list[Command] = [("DEL", name)] if name is not None and is_there else []
        is_running = name is None and scope is not NOTHING
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

    async def _finish(self, purges: Mapping[str, int]) -> None:
        members = running_in(await self._ask("SMEMBERS", RUNNING))
        done = [str(one) for one in members if one.generation <= purges.get(one.name, 0)]
        if done:
            await self._ask("SREM", RUNNING, *done)
        for name, generation in purges.items():
            notice = Finished(generation, name)
            await self._ask(*publish(notice))
            self._note(notice)

    async def _ask(self, *command: str | bytes | int) -> Any:
        (reply,) = await self._link.ask([command], timeout_s=_ASK_S)
        raise_error_in(reply)
        return reply


def _us(time: Sequence[bytes]) -> int:
    """Return Redis' time in microseconds, from its reply to TIME."""
    return int(time[0]) * 1_000_000 + int(time[1])


def _too_many() -> StoreError:
    return StoreError("too many purges at the same time", "unavailable")
