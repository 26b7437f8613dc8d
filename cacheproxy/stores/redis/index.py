"""The search indexes of a Redis: one for each model fingerprint and probe length.

An index is created on first use, by one process under a lock, and created again if it disappears.
An existing index of that name is checked first: if its definition differs, it is left alone, and
the semantic tier is off until an operator removes it. Without the Query Engine, exact lookups still
work.
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

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.keys import hex_id
from cacheproxy.stores.redis.link import UNKNOWN_COMMAND, as_store_error, is_gone, is_useless, says

_log = logging.getLogger(__name__)

ENTRY_PREFIX = b"cp:e3:"
"""Prefix of every entry's name; the number rises whenever the form of entries changes."""

NAMESPACE_FIELD = "namespace"
TAGS_FIELD = "tags"

_PREPARE_S = 5.0
_CLOSE_S = 1.0

_LOCK_S = 10.0
"""How long the lock of the process that creates an index lasts."""

_LOOK_AGAIN_S = 30.0
"""Pause before an index that cannot be used or created is checked again."""

_LOCKED_PAUSE_S = 0.05

_KNOWN_INDEXES = 64


@dataclass(frozen=True, slots=True)
class Hnsw:
    """Parameters of the graphs.

    Measured in Redis 7.4 with 100,000 clustered unit vectors of 256 float16, against brute force in
    float32: with the defaults, recall@1 is 0.998, a lookup takes 0.3 ms, and an entry with a vector
    of 384 float32 takes 4,061 bytes in all. With `m` 16 recall is 1.000 for 40 bytes more; with
    `ef_runtime` 10 it is 0.91.
    """

    m: int = 12
    ef_construction: int = 200
    ef_runtime: int = 64


@dataclass(frozen=True)
class ProbeIndex:
    """The index of one model's probes of one length.

    Attributes:
        tag: at a node of a cluster, digits that put the name into a slot of that node; where names
            of indexes are no keys, empty.
    """

    fingerprint: str
    dimensions: int
    tag: str = ""

    @cached_property
    def name(self) -> str:
        """The index's name: letters, digits, colons, braces."""
        tag = f"{{{self.tag}}}:" if self.tag else ""
        return f"cp:i3:{tag}{self._id}:{self.dimensions}"

    @cached_property
    def field(self) -> str:
        """The field that holds an entry's probe; the index covers the entries that have it."""
        return f"probe_{self._id}_{self.dimensions}"

    @cached_property
    def _id(self) -> str:
        return hex_id(self.fingerprint)[:16]

    def schema(self, hnsw: Hnsw) -> IndexSchema:
        """Return the schema with which the index is created and checked."""
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
    """What Redis reports of an index; `indexed_ratio` is below 1 while it is being filled."""

    documents: int
    failures: int
    size_bytes: float
    indexed_ratio: float


IsBlind = Callable[[ProbeIndex], Awaitable[bool]]
"""Returns whether an index fails to find an existing entry; raises `StoreError`."""


@dataclass(frozen=True, slots=True)
class _State:
    """Whether an index is ready; if not, why, and when to check again (monotonic, seconds)."""

    is_ready: bool
    look_again_at: float = 0.0
    reason: str | None = None


class ProbeIndexes:
    """Creates and checks indexes; knows which are ready."""

    def __init__(
        self, pool: ConnectionPool, hnsw: Hnsw, lock_prefix: Callable[[], str] = lambda: "cp:lock:"
    ) -> None:
        self._lock_prefix = lock_prefix
        self._client = Redis(connection_pool=pool)
        self._hnsw = hnsw
        self._states: dict[ProbeIndex, _State] = {}
        self._preparing: dict[ProbeIndex, asyncio.Task[None]] = {}
        self._missing: str | None = None  # why this Redis cannot search at all

    @property
    def off_because(self) -> str | None:
        """Why the semantic tier is off, in a sentence; None while it is not."""
        reasons = [state.reason for state in self._states.values()]
        return next((reason for reason in reasons if reason is not None), self._missing)

    async def look(self) -> None:
        """Find out whether this Redis can search at all, and log it if not.

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
        """Stop preparing indexes, and close the pool; no call may be in progress."""
        await stop_tasks(*self._preparing.values())
        # A frozen Redis may never close the socket.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.connection_pool.aclose()

    async def is_ready(self, index: ProbeIndex) -> bool:
        """Return whether the index can be searched; check it, or create it, if that is unknown.

        Raises:
            StoreError: Redis did not answer.
        """
        state = self._states.get(index)
        if state is None or (not state.is_ready and time.monotonic() >= state.look_again_at):
            # In a task that all callers share and that outlives their cancellation.
            await asyncio.shield(self._prepare_soon(index))
            state = self._states.get(index)
        return state is not None and state.is_ready

    def lost(self, index: ProbeIndex) -> None:
        """Create the index again in the background, after a reply said that it is gone."""
        self._states.pop(index, None)
        self._prepare_soon(index)

    def ready(self) -> list[ProbeIndex]:
        """Return the indexes that are ready."""
        return [index for index, state in self._states.items() if state.is_ready]

    async def measure(self, index: ProbeIndex) -> IndexFigures | None:
        """Return what Redis reports of an index; None if it does not exist.

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
            # Redis 7.4 leaves the graphs out of the total.
            size_bytes=2**20
            * (float(info["total_index_memory_sz_mb"]) + float(info["vector_index_sz_mb"])),
            indexed_ratio=float(info["percent_indexed"]),
        )

    async def rebuild(self, index: ProbeIndex, is_blind: IsBlind) -> bool:
        """Drop and create an index, which Redis then fills from the entries; return whether it did.

        It does not if another process is rebuilding the index, or has already done so.

        Raises:
            StoreError: Redis did not answer.
        """
        try:
            async with asyncio.timeout(_PREPARE_S), self._lock(index) as is_ours:
                if not is_ours or not await is_blind(index):
                    return False
                _log.warning("index %s does not find existing entries; rebuilding it", index.name)
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
            # Its error is not lost: the next lookup meets it again.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _prepare(self, index: ProbeIndex) -> None:
        try:
            async with asyncio.timeout(_PREPARE_S):
                state = await self._find_or_make(index)
        except UnusableError as error:
            state = self._off(str(error))
        except RedisSearchError as error:
            # redisvl wraps redis-py's error, which is the cause.
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
        if await self.find(index):
            return _State(True)
        async with self._lock(index) as is_ours:
            if not is_ours:
                return _State(False, time.monotonic() + _LOCKED_PAUSE_S)
            try:
                if not await self.find(index):
                    await self._make(index)
            except exceptions.ResponseError as error:
                if not says(error, "already exists"):
                    raise
                return _State(False)  # the lock expired and another process was faster; check again
        return _State(True)

    @asynccontextmanager
    async def _lock(self, index: ProbeIndex) -> AsyncIterator[bool]:
        """Hold the lock for creating an index; yield False if another process holds it."""
        lock, token = f"{self._lock_prefix()}{index.name}", secrets.token_hex(8).encode()
        if not await self._client.set(lock, token, nx=True, px=int(1000 * _LOCK_S)):
            yield False
            return
        try:
            yield True
        finally:
            # If the lock expires between these two commands, another process's lock is removed.
            # Then two processes create the index, and Redis refuses the second.
            if await self._client.get(lock) == token:
                await self._client.delete(lock)

    async def find(self, index: ProbeIndex) -> bool:
        """Return whether the index exists.

        Raises:
            UnusableError: its definition differs.
            RedisError: Redis did not answer, or redisvl wraps its error.
        """
        try:
            found = await AsyncSearchIndex.from_existing(index.name, redis_client=self._client)
        except RedisSearchError as error:
            if is_gone(error.__cause__):
                return False
            raise
        wanted = index.schema(self._hnsw)
        if found.schema.index.prefix != wanted.index.prefix:
            raise UnusableError(
                f"index {index.name} covers keys with another prefix; "
                f"remove it with FT.DROPINDEX {index.name}"
            )
        for name, field in wanted.fields.items():
            is_, should_be = _kind(found.schema.fields.get(name)), _kind(field)
            if is_ != should_be:
                raise UnusableError(
                    f"field {name} of index {index.name} is {is_}, but must be "
                    f"{should_be}; remove the index with FT.DROPINDEX {index.name}"
                )
        return True

    async def _make(self, index: ProbeIndex) -> None:
        # Not with redisvl's `create`, which has no FILTER: without it, each model's index would
        # also list the entries of other models and those without a probe.
        definition = IndexDefinition(
            prefix=[ENTRY_PREFIX.decode()],
            filter=f"exists(@{index.field})",
            index_type=IndexType.HASH,
        )
        fields = index.schema(self._hnsw).redis_fields
        await self._client.ft(index.name).create_index(fields, definition=definition)
        _log.info("created index %s", index.name)


class UnusableError(Exception):
    """An index exists but cannot be used; the message says why, and what to do."""


def _say_off(reason: str) -> None:
    _log.warning("the semantic tier is off, exact lookups work: %s", reason)


def _kind(field: BaseField | None) -> str:
    """Describe what must be equal in two fields for them to be interchangeable."""
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
    if says(error, UNKNOWN_COMMAND):
        return "this Redis has no Query Engine"
    return str(error)
