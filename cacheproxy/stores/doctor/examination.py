"""The examination of a store: its servers one by one, and then the store as the tiers use it."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from redis import exceptions
from redisvl.exceptions import RedisVLError

from cacheproxy.errors import StoreError
from cacheproxy.keys import hex_id
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.doctor.entries import FINGERPRINT, check_entries
from cacheproxy.stores.doctor.facts import Facts, judge, judge_clock, judge_round_trip
from cacheproxy.stores.doctor.findings import Finding
from cacheproxy.stores.doctor.permissions import check_permissions
from cacheproxy.stores.doctor.reaching import Node, NotReached, reached
from cacheproxy.stores.factory import make_store
from cacheproxy.stores.redis.index import Hnsw, ProbeIndex, ProbeIndexes, UnusableError
from cacheproxy.stores.redis.nodes.naming import index_of_name

_ASK_S = 5.0
_SQLITE = b"SQLite format 3\0"
_PINGS = 11

_NO_ENTRIES = ("connection", "permissions", "replication", "topology")
"""Where one of these is broken, entries would only repeat it."""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield what is found of the store that the settings name, within some seconds.

    Entries are written, in a namespace of the examination's own, and removed again.

    Raises:
        ConfigError: its URL cannot be read.
    """
    url = settings.redis_url
    findings = []
    if url is not None:
        async for finding in examine_servers(url, settings):
            findings.append(finding)
            yield finding
    elif (wrong := await asyncio.to_thread(_check_file, settings.store_path)) is not None:
        yield wrong
        return
    if any(one.level == "error" and one.check in _NO_ENTRIES for one in findings):
        return
    try:
        async for finding in _entries(settings):
            yield finding
    finally:
        if url is not None:
            await _remove_index(url, is_cluster=settings.is_cluster)


async def examine_servers(
    url: str, settings: Settings, *, briefly: bool = False
) -> AsyncIterator[Finding]:
    """Yield what the servers of a store in Redis say of themselves; nothing is written.

    `briefly`: only what costs no more than a few round trips.
    """
    wants_search = settings.semantic.mode != "off"
    try:
        async with reached(url, is_cluster=settings.is_cluster) as nodes:
            for node in nodes:
                async for finding in _examine_node(node, settings, wants_search, briefly=briefly):
                    yield finding
    except NotReached as reason:
        yield reason.finding


async def _examine_node(
    node: Node, settings: Settings, wants_search: bool, *, briefly: bool
) -> AsyncIterator[Finding]:
    try:
        asked_at = time.time()
        (told,) = await node.link.ask([("TIME",)], timeout_s=_ASK_S)
        answered_at = time.time()
        (info,) = await node.link.ask([("INFO", "EVERYTHING")], timeout_s=_ASK_S)
        facts = Facts.read(info) if isinstance(info, bytes) else None
        if facts is None:
            yield Finding("version", "warning", f"INFO is refused ({info})", node=node.name)
        else:
            if facts.is_cluster_node and not settings.is_cluster:
                todo = "write redis+cluster:// in place of redis://"
                says = "this is a node of a cluster, and the URL is a single server's"
                yield Finding("topology", "error", says, todo, node.name)
                return
            for finding in judge(facts, node.name, wants_search=wants_search):
                yield finding
        if isinstance(told, list):
            now = int(told[0]) + int(told[1]) / 1e6
            yield judge_clock(now - (asked_at + answered_at) / 2, node.name)
        yield await _check_round_trip(node, settings.cache.deadline_ms / 1000)
        if node.database and wants_search:
            says = f"database {node.database}, and the Query Engine searches database 0 only"
            yield Finding("database", "error", says, "end the URL with /0", node.name)
        if briefly:
            return
        has_search = facts is not None and "search" in facts.modules
        async with node.connection() as connection:
            yield await check_permissions(
                connection, node.name, has_search=has_search, is_cluster=settings.is_cluster
            )
        if has_search and wants_search:
            async for finding in _check_indexes(node):
                yield finding
    except StoreError as error:
        todo = "see why this server does not answer"
        yield Finding("connection", "error", str(error), todo, node.name)


async def _check_round_trip(node: Node, deadline_s: float) -> Finding:
    took_s = []
    for _ in range(_PINGS):
        began_at = time.perf_counter()
        await node.link.ask([("PING",)], timeout_s=_ASK_S)
        took_s.append(time.perf_counter() - began_at)
    return judge_round_trip(statistics.median(took_s), deadline_s, node.name)


async def _check_indexes(node: Node) -> AsyncIterator[Finding]:
    (names,) = await node.link.ask([("FT._LIST",)], timeout_s=_ASK_S)
    if isinstance(names, exceptions.ResponseError):
        return  # permissions tell
    checker = ProbeIndexes(node.pool, Hnsw())
    found = [index for name in names if (index := index_of_name(name.decode())) is not None]
    wrong = [reason for index in found if (reason := await _wrong(checker, index))]
    for reason in wrong:
        yield Finding("indexes", "error", reason, "it is made anew on the next lookup", node.name)
    if not wrong:
        yield Finding("indexes", "ok", f"{len(found)} of ours", node=node.name)


def _check_file(path: Path | None) -> Finding | None:
    """Return what is wrong with the embedded store's file; None if nothing, or if there is none."""
    if path is None or not path.exists():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
    except OSError as error:
        return Finding("file", "error", f"{path} cannot be read: {error.strerror}", "see its owner")
    if head not in (b"", _SQLITE):
        todo = "name another file: the server would rename this one and begin anew"
        return Finding("file", "error", f"{path} is no SQLite file", todo)
    return None


async def _entries(settings: Settings) -> AsyncIterator[Finding]:
    wants_search = settings.semantic.mode != "off"
    # A store that is slow, once or always, is told of by its round trips.
    cache = settings.cache.model_copy(update={"deadline_ms": 1000 * _ASK_S})
    patient = settings.model_copy(update={"cache": cache})
    one = make_store(patient)
    other = None if settings.is_in_memory else make_store(patient)
    opened = [one] if other is None else [one, other]
    try:
        for store in opened:
            await store.open()
        async for finding in check_entries(one, other, wants_search=wants_search):
            yield finding
    except StoreError as error:
        yield Finding("entries", "error", str(error), "see the message")
    finally:
        for store in opened:
            await store.close()


async def _wrong(checker: ProbeIndexes, index: ProbeIndex) -> str | None:
    """Return why an existing index cannot be used, in a sentence; None if it can."""
    try:
        await checker.find(index)
    except UnusableError as error:
        return str(error)
    except (exceptions.RedisError, OSError, RedisVLError) as error:
        return f"index {index.name} cannot be read ({error})"
    return None


async def _remove_index(url: str, *, is_cluster: bool) -> None:
    """Remove the index that the examination's entries had."""
    of_ours = f":{hex_id(FINGERPRINT)[:16]}:".encode()
    with suppress(StoreError, NotReached, TimeoutError):
        async with (
            asyncio.timeout(_ASK_S),
            reached(url, is_cluster=is_cluster) as nodes,
        ):
            for node in nodes:
                (names,) = await node.link.ask([("FT._LIST",)], timeout_s=_ASK_S)
                if isinstance(names, list):
                    drops = [("FT.DROPINDEX", name) for name in names if of_ours in name]
                    await node.link.ask(drops, timeout_s=_ASK_S)
