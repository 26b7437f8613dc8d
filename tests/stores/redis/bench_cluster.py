"""Lookups by probe on a cluster of three, against those on one server; a benchmark, not a test.

    PYTHONPATH=.:tests:tests/support python tests/stores/redis/bench_cluster.py [ENTRIES]

Prints recall@1 against brute force, a lookup's p50 on both in alternation, and how long answers
take after one node is frozen. All processes are on this machine.
"""

import asyncio
import statistics
import sys
import time
from contextlib import suppress

import numpy as np
import uvloop
from redis_entries import PARTITION, entries
from redis_server import RedisServer
from redis_topology import ThreeNodes

from cacheproxy.concurrency.time_slices import be_prompt
from cacheproxy.errors import StoreError
from cacheproxy.stores.redis.cluster import ClusterStore
from cacheproxy.stores.redis.store import RedisStore

DIMENSIONS, RECORD_BYTES, LOOKUPS, DEADLINE_S = 256, 1_600, 2_000, 0.025


def clustered(count: int, seed: int) -> np.ndarray:
    """Unit vectors around 5,000 centres, as paraphrases are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((5_000, DIMENSIONS))
    rows = centres[random.integers(len(centres), size=count)]
    rows = rows + 0.7 * random.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


async def fill(store, rows: np.ndarray) -> float:
    began_at = time.monotonic()
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        names = range(start, start + len(part))
        await store.put_many(entries(names, ttl_s=7_200, probes=part, size=RECORD_BYTES))
    return time.monotonic() - began_at


async def recall(store, rows: np.ndarray, asked: np.ndarray) -> float:
    nearest = np.concatenate([(part @ rows.T).argmax(axis=1) for part in np.split(asked, 20)])
    hits = 0
    for start in range(0, len(asked), 100):
        found = await store.nearest(PARTITION, asked[start : start + 100])
        expected = nearest[start : start + 100]
        hits += sum(
            one is not None and int(one.record) == place
            for one, place in zip(found, expected, strict=True)
        )
    return hits / len(asked)


async def took_ms(store, probe: np.ndarray) -> float:
    began_at = time.perf_counter()
    with suppress(StoreError):  # on a busy machine: late, which its time shows
        await store.nearest(PARTITION, probe)
    return 1000 * (time.perf_counter() - began_at)


async def compare(one, cluster, asked: np.ndarray) -> None:
    times: dict[str, list[float]] = {"one": [], "cluster": []}
    cpu = dict.fromkeys(times, 0.0)
    for row in asked:
        for name, store in (("one", one), ("cluster", cluster)):
            before = time.process_time()
            times[name].append(await took_ms(store, row[None]))
            cpu[name] += time.process_time() - before
    for name, taken in times.items():
        p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
        own = 1e6 * cpu[name] / len(taken)
        print(f"{name:8} p50 {p50:.3f} ms, p99 {p99:.3f} ms, {own:.0f} us of this process' CPU")


async def freeze(nodes: ThreeNodes, cluster, asked: np.ndarray) -> None:
    nodes.nodes[1].pause()
    taken, failed = [], 0
    for row in asked[:500]:
        began_at = time.perf_counter()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await cluster.nearest(PARTITION, row[None])
        except (TimeoutError, StoreError):
            failed += 1
        taken.append(1000 * (time.perf_counter() - began_at))
    slow = [place for place, each in enumerate(taken) if each > 1000 * DEADLINE_S / 4]
    print(
        f"frozen   {failed} of {len(taken)} past {1000 * DEADLINE_S:g} ms; longest "
        f"{max(taken):.1f} ms; lookups that waited: {len(slow)}, the last was number "
        f"{max(slow, default=-1) + 1}; p50 afterwards {statistics.median(taken[50:]):.3f} ms; "
        f"unanswered {cluster.stats().unanswered}"
    )
    nodes.nodes[1].resume()


async def main(count: int) -> None:
    be_prompt()
    single, nodes = RedisServer(), ThreeNodes()
    single.start()
    nodes.start()
    try:
        one, patient = RedisStore(single.url), ClusterStore(nodes.url)
        cluster = ClusterStore(nodes.url, deadline_s=DEADLINE_S)
        for store in (one, patient, cluster):
            await store.open()
        rows, asked = clustered(count, 1), clustered(LOOKUPS, 2)
        print(f"{count} entries: one {await fill(one, rows):.0f} s, ", end="")
        print(f"cluster {await fill(patient, rows):.0f} s to write")
        print(f"recall@1 one {await recall(one, rows, asked):.4f}, ", end="")
        print(f"cluster {await recall(patient, rows, asked):.4f}; {patient.reach}")
        with suppress(StoreError):  # the first lookup looks for the indexes, too
            await cluster.nearest(PARTITION, asked[:1])
        await asyncio.sleep(1)
        await compare(one, cluster, asked)
        await freeze(nodes, cluster, asked)
        for store in (one, patient, cluster):
            await store.close()
    finally:
        single.remove()
        nodes.remove()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
