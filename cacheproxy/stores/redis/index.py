"""The search indexes of a Redis: one for each model fingerprint and probe length.

An index is created on first use, by one process under a lock, and recreated when it is missing. An
existing index of its name is checked first: if its schema differs it is left unchanged, and lookups
by probe are off until it is removed. A Redis without the Query Engine still has exact lookups.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.commands.search.index_definition import IndexDefinition, IndexType
from redisvl.exceptions import RedisSearchError
from redisvl.index import AsyncSearchIndex
from redisvl.schema import IndexSchema
from redisvl.schema.fields import BaseField, BaseVectorFieldAttributes

from cacheproxy.keys import hex_id
from cacheproxy.stores.redis.link import as_store_error

_log = logging.getLogger(__name__)

ENTRY_PREFIX = b"cp:e2:"
"""Of every entry's key. The number is that of the entries' form, raised whenever that changes."""

NAMESPACE_FIELD = "namespace"
TAGS_FIELD = "tags"

_PREPARE_S = 5.0
_CLOSE_S = 1.0

_LOCK_S = 10.0
"""How long others leave an index to the process that is making it."""

_LOOK_AGAIN_S = 30.0
"""Pause before an index that cannot be used or created is checked again."""

_LOCKED_PAUSE_S = 0.05

_KNOWN_INDEXES = 64

_UNKNOWN_COMMAND = "unknown command"


@dataclass(frozen=True, slots=True)
class Hnsw:
    """Parameters of the graphs.

    Measured in Redis 7.4 with 100,000 clustered unit vectors of 256 float16, against brute force in
    float32: the defaults have a recall@1 of 0.998, a lookup takes 0.3 ms, and an entry with a
    vector of 384 float32 takes 4,061 bytes, all included. `m` 16 takes 40 bytes more for a recall
    of 1.000; `ef_runtime` 10 has one of 0.91.
    """

    m: int = 12
    ef_construction: int = 200
    ef_runtime: int = 64


@dataclass(frozen=True)
class ProbeIndex:
    """The index of one model's probes of one length."""

    fingerprint: str
    dimensions: int

    @cached_property
    def name(self) -> str:
        """The index's name: letters, digits, colons."""
        return f"cp:i2:{self._id}:{self.dimensions}"

    @cached_property
    def field(self) -> str:
        """The field of an entry that holds its probe, and by which the index knows its entries."""
        return f"probe_{self._id}_{self.dimensions}"

    @cached_property
    def _id(self) -> str:
        return hex_id(self.fingerprint)[:16]

    def schema(self, hnsw: Hnsw) -> IndexSchema:
        """Return the schema by which the index is made and checked."""
        return IndexSchema.from_dict(
            {
                "index": {
                    "name": self.name,
                    "prefix": ENTRY_PREFIX.decode(),
                    "storage_type": "hash",
                },
                "fields": [
                    {"name": NAMESPACE_FIELD, "type": "tag"},
                    {"name": TAGS_FIELD, "type": "tag"},
                    {
                        "name": self.field,
                        "type": "vector",
                        "attrs": {
                            "algorithm": "hnsw",
                            "datatype": "float16",
                            "dims": self.dimensions,
                            "distance_metric": "cosine",
                            "m": hnsw.m,
                            "ef_construction": hnsw.ef_construction,
                        },
                    },
                ],
            }
        )


@dataclass(frozen=True, slots=True)
class IndexFigures:
    """What Redis says of one index; `indexed_ratio` is below 1 while it is being filled."""

    documents: int
    failures: int
    size_bytes: float
    indexed_ratio: float


IsBlind = Callable[[ProbeIndex], Awaitable[bool]]
"""Whether an index does not find an entry that is there; raises `StoreError`."""


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of an index: ready, or why not, and when to look again (monotonic, seconds)."""

    is_ready: bool
    look_again_at: float = 0.0
    reason: str | None = None


class ProbeIndexes:
    """Makes and checks indexes; knows which are ready."""

    def __init__(self, pool: ConnectionPool, hnsw: Hnsw) -> None:
        self._client = Redis(connection_pool=pool)
        self._hnsw = hnsw
        self._states: dict[ProbeIndex, _State] = {}
        self._preparing: dict[ProbeIndex, asyncio.Task[None]] = {}
        self._missing: str | None = None  # what this Redis lacks to search at all

    @property
    def off_because(self) -> str | None:
        """Why lookups by probe are off, in a sentence; None while they are not."""
        reasons = [state.reason for state in self._states.values()]
        return next((reason for reason in reasons if reason is not None), self._missing)

    async def look(self) -> None:
        """Find out, and say, whether this Redis can search at all.

        Raises:
            StoreError: Redis did not answer.
        """
        try:
            async with asyncio.timeout(_PREPARE_S):
                await self._client.execute_command("FT._LIST")
        except (exceptions.RedisError, OSError) as error:
            self._missing = _reason(error)
            _say_off(self._missing)

    async def close(self) -> None:
        """Stop what is being prepared, and close the pool, which no one uses any more."""
        tasks = list(self._preparing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A frozen Redis may never take leave.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.connection_pool.aclose()

    async def is_ready(self, index: ProbeIndex) -> bool:
        """Return whether the index can be asked; where that is not known, look, or make it.

        Raises:
            StoreError: Redis did not answer.
        """
        state = self._states.get(index)
        if state is None or (not state.is_ready and time.monotonic() >= state.look_again_at):
            # In a task that all callers share, and that goes on if they are cancelled.
            await asyncio.shield(self._prepare_soon(index))
            state = self._states.get(index)
        return state is not None and state.is_ready

    def lost(self, index: ProbeIndex) -> None:
        """Recreate the index in the background, because a reply said that it is missing."""
        self._states.pop(index, None)
        self._prepare_soon(index)

    def ready(self) -> list[ProbeIndex]:
        """Return the indexes that are known to answer."""
        return [index for index, state in self._states.items() if state.is_ready]

    async def measure(self, index: ProbeIndex) -> IndexFigures | None:
        """Return what Redis says of an index; None if there is none of its name.

        Raises:
            StoreError: Redis did not answer.
        """
        try:
            async with asyncio.timeout(_PREPARE_S):
                info = await self._client.ft(index.name).info()
        except (exceptions.RedisError, OSError) as error:
            if is_useless(error):
                self.lost(index)
                return None
            raise as_store_error(error) from error
        return IndexFigures(
            documents=int(info["num_docs"]),
            failures=int(info["hash_indexing_failures"]),
            # The graphs are not in the total (Redis 7.4).
            size_bytes=2**20
            * (float(info["total_index_memory_sz_mb"]) + float(info["vector_index_sz_mb"])),
            indexed_ratio=float(info["percent_indexed"]),
        )

    async def rebuild(self, index: ProbeIndex, is_blind: IsBlind) -> bool:
        """Make an index anew, which Redis then fills from the entries; return whether it was.

        It is not if another process is at it, or was in time.

        Raises:
            StoreError: Redis did not answer.
        """
        try:
            async with asyncio.timeout(_PREPARE_S), self._lock(index) as is_ours:
                if not is_ours or not await is_blind(index):
                    return False
                _log.warning(
                    "the index %s returns nothing for existing entries; rebuilding it", index.name
                )
                await self._client.ft(index.name).dropindex()
                await self._make(index)
        except (exceptions.RedisError, OSError) as error:
            raise as_store_error(error) from error
        return True

    def _prepare_soon(self, index: ProbeIndex) -> asyncio.Task[None]:
        task = self._preparing.get(index)
        if task is None:
            task = self._preparing[index] = asyncio.create_task(self._prepare(index))
            task.add_done_callback(lambda _: self._preparing.pop(index))
            # Nobody may be waiting for it; what went wrong is met again by the next lookup.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _prepare(self, index: ProbeIndex) -> None:
        try:
            async with asyncio.timeout(_PREPARE_S):
                state = await self._find_or_make(index)
        except _UnusableError as error:
            state = self._off(str(error))
        except RedisSearchError as error:
            # redisvl's wrapping of redis-py's error, which is its cause.
            state = self._off(_reason(error.__cause__ or error))
        except (exceptions.RedisError, OSError) as error:
            state = self._off(_reason(error))
        if state.is_ready:
            self._missing = None
        if len(self._states) >= _KNOWN_INDEXES:
            self._states.pop(next(iter(self._states)))
        self._states[index] = state

    def _off(self, reason: str) -> _State:
        known = (self._missing, *(state.reason for state in self._states.values()))
        if reason not in known:
            _say_off(reason)
        return _State(False, time.monotonic() + _LOOK_AGAIN_S, reason)

    async def _find_or_make(self, index: ProbeIndex) -> _State:
        if await self._find(index):
            return _State(True)
        async with self._lock(index) as is_ours:
            if not is_ours:
                return _State(False, time.monotonic() + _LOCKED_PAUSE_S)
            try:
                if not await self._find(index):
                    await self._make(index)
            except exceptions.ResponseError as error:
                if not _says(error, "already exists"):
                    raise
                return _State(False)  # somebody was faster, the lock having run out; look again
        return _State(True)

    @asynccontextmanager
    async def _lock(self, index: ProbeIndex) -> AsyncIterator[bool]:
        """Hold the lock under which one process makes an index; yield False if another does."""
        lock, token = f"cp:lock:{index.name}", secrets.token_hex(8).encode()
        if not await self._client.set(lock, token, nx=True, px=int(1000 * _LOCK_S)):
            yield False
            return
        try:
            yield True
        finally:
            # Should the lock run out between the two, another's is removed: then two processes make
            # the index, and Redis refuses the second.
            if await self._client.get(lock) == token:
                await self._client.delete(lock)

    async def _find(self, index: ProbeIndex) -> bool:
        """Return whether there is an index of this name, checked to be as it has to be."""
        try:
            found = await AsyncSearchIndex.from_existing(index.name, redis_client=self._client)
        except RedisSearchError as error:
            if is_gone(error.__cause__):
                return False
            raise
        wanted = index.schema(self._hnsw)
        if found.schema.index.prefix != wanted.index.prefix:
            raise _UnusableError(
                f"the index {index.name} covers keys with another prefix; "
                f"remove it with FT.DROPINDEX {index.name}"
            )
        for name, field in wanted.fields.items():
            is_, should_be = _kind(found.schema.fields.get(name)), _kind(field)
            if is_ != should_be:
                raise _UnusableError(
                    f"the field {name} of the index {index.name} is {is_}, and has to be "
                    f"{should_be}; remove the index with FT.DROPINDEX {index.name}"
                )
        return True

    async def _make(self, index: ProbeIndex) -> None:
        # Not redisvl's own `create`: it knows no FILTER, without which each model's index would
        # also list the entries of all others, and those without a probe.
        definition = IndexDefinition(
            prefix=[ENTRY_PREFIX.decode()],
            filter=f"exists(@{index.field})",
            index_type=IndexType.HASH,
        )
        fields = index.schema(self._hnsw).redis_fields
        await self._client.ft(index.name).create_index(fields, definition=definition)
        _log.info("created the index %s", index.name)


class _UnusableError(Exception):
    """An index is there and cannot be used; the message says why, and what to do."""


def is_gone(reply: object) -> bool:
    """Return whether a reply says that there is no such index."""
    return _says(reply, "no such index", "unknown index", "index not found")


def is_useless(reply: object) -> bool:
    """Return whether a reply says that what was found ready is gone, index or Query Engine."""
    return is_gone(reply) or _says(reply, _UNKNOWN_COMMAND)


def _says(reply: object, *phrases: str) -> bool:
    if not isinstance(reply, exceptions.ResponseError):
        return False
    said = str(reply).lower()
    return any(phrase in said for phrase in phrases)


def _say_off(reason: str) -> None:
    _log.warning("lookups by probe are off, exact lookups continue: %s", reason)


def _kind(field: BaseField | None) -> str:
    """Return a description of the properties in which two compatible fields must agree."""
    if field is None:
        return "missing"
    if isinstance(field.attrs, BaseVectorFieldAttributes):
        attributes = field.attrs
        return (
            f"{attributes.algorithm} of {attributes.dims} {attributes.datatype}, "
            f"by {attributes.distance_metric}"
        ).lower()
    return str(field.type)


def _reason(error: BaseException) -> str:
    """Return why this Redis cannot search, if the error says so.

    Raises:
        StoreError: the error says nothing of the kind; it may be another one next time.
    """
    passing = (exceptions.ReadOnlyError, exceptions.OutOfMemoryError)
    if not isinstance(error, exceptions.ResponseError) or isinstance(error, passing):
        raise as_store_error(error) from error
    if _says(error, _UNKNOWN_COMMAND):
        return "this Redis has no Query Engine"
    return str(error)
