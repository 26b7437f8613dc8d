"""Lookups by probe in a Redis that is full of entries.

The benchmark fills an empty Redis, and shows what an entry takes in memory and how often the
nearest entry is found. Then one client at a time gets exact and semantic hits through a server. The
hot tier is off, and the threshold is set by hand, so that every near-duplicate is a hit.
"""

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from tqdm import tqdm

from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, Namespace
from cacheproxy.modelkit.install import load_installed
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.records import EmbeddingRecord, pack
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.redis.store import RedisStore

from ..errors import LoadTestError
from ..servers.processes import running_server
from ..traffic.scenario import Mix
from ..traffic.target import endpoint
from ..traffic.texts import TextSource
from .caller import Caller
from .options import model_flags, settings_of, smoke_flag
from .wrk import WrkResult, body_of, load, load_once

_PART = 256
_QUERIES = 500
_CLUSTER = 20
_TTL_S = 3_600
_WORDS = (12, 15)
_LEAST_HITS = 0.95
_ENDINGS = ["".join(marks) for n in (1, 2, 3, 4) for marks in product("?!.,", repeat=n)]
"""Each makes a text with other token ids, but nearly the same meaning."""

_ASKED_PER_S = 5_000
"""More near-duplicates a second than one client gets answered."""

Floats = NDArray[np.float32]


@click.command()
@smoke_flag(entries=2_000, texts=200, rounds=1, seconds=1)
@model_flags
@click.option("--redis", "redis_url", required=True, help="an empty Redis with the Query Engine")
@click.option("--entries", default=100_000, show_default=True)
@click.option("--probe", type=click.Choice(["shallow", "static"]), default="shallow")
@click.option("--texts", default=2_000, show_default=True, help="stored through the server")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=2, show_default=True, help="of each measurement")
def main(
    redis_url: str,
    entries: int,
    probe: str,
    texts: int,
    model: str,
    home: Path | None,
    rounds: int,
    seconds: int,
) -> None:
    """Semantic hits in a Redis with many entries.

    Shows memory and recall, and compares semantic hits with exact ones.
    """
    settings = settings_of(home, semantic={"probe": probe})
    installed = load_installed(model, settings.home)
    name = make_probe(settings, installed).name
    namespace_id = Namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE).id
    partition = Partition(namespace_id, f"{installed.fingerprint}:{name}")
    asyncio.run(_fill(redis_url, partition, entries, installed.dimensions))
    flags = ["--store", redis_url, "--cache-hot-bytes", "0", "--semantic-probe", probe]
    flags += ["--semantic-threshold", "0.9"]
    with running_server(settings.home, model, *flags) as url:
        _hits(url, model, texts, rounds, seconds)


async def _fill(url: str, partition: Partition, count: int, dimensions: int) -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(-(-count // _CLUSTER), 256))
    near = np.repeat(centres, _CLUSTER, axis=0)[:count] + 0.5 * rng.normal(size=(count, 256))
    probes = _unit(near)
    client = Redis.from_url(url)
    before = client.info("memory")["used_memory"]
    store = RedisStore(url)
    await store.open()
    for start in tqdm(range(0, count, _PART), desc="filling", unit_scale=_PART):
        rows = range(start, min(start + _PART, count))
        await store.put_many([_entry(row, partition, probes[row], dimensions) for row in rows])
    used = client.info("memory")["used_memory"] - before
    queries = _unit(probes[rng.integers(count, size=_QUERIES)] + 0.03 * rng.normal(size=256))
    found = []
    for query in queries:
        found += await store.nearest(partition, query[None])
    await store.close()
    best = (queries @ probes.T).argmax(axis=1)
    right = sum(
        one is not None and one.key == _key(int(row)) for one, row in zip(found, best, strict=True)
    )
    click.echo(f"{count} entries, {used / count:.0f} bytes each, all included")
    click.echo(f"recall@1 against brute force: {right / _QUERIES:.3f}")


def _entry(row: int, partition: Partition, probe: Floats, dimensions: int) -> Entry:
    now = time.time()
    vector = np.random.default_rng(row).normal(size=dimensions).astype("<f4")
    record = EmbeddingRecord(
        partition.namespace_id, _key(row), now, now + _TTL_S, 12, vector.tobytes()
    )
    return Entry(_key(row), partition, pack(record), now + _TTL_S, probe=probe)


def _key(row: int) -> bytes:
    return row.to_bytes(8, "little") * 4


def _unit(rows: NDArray[np.floating]) -> Floats:
    result: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return result


def _hits(url: str, model: str, texts: int, rounds: int, seconds: int) -> None:
    route = endpoint(url, "embeddings")
    # Made-up texts, because near-duplicates of each other would hit instead of being stored.
    source = TextSource(seed=1)
    stored = [source.draw(Mix(unseen=1.0), _WORDS, 0, remember=False).text for _ in range(texts)]
    caller = Caller(route)
    for text in tqdm(stored, desc="storing", unit="text"):
        caller.post(body_of(text, model))
    while _metric(url, "writeback_queue_entries"):
        time.sleep(0.1)
    near = (f"{text} {ending}" for ending in _ENDINGS for text in stored)
    exact: list[WrkResult] = []
    semantic: list[WrkResult] = []
    for _ in tqdm(range(rounds), unit="round"):
        bodies = [body_of(text, model) for text in stored]
        with _mostly_hits(url, "exact", exact):
            exact.append(load(route, bodies, clients=1, seconds=seconds))
        bodies = [body_of(text, model) for text in islice(near, _ASKED_PER_S * seconds)]
        with _mostly_hits(url, "semantic", semantic):
            semantic.append(load_once(route, bodies, clients=1, seconds=seconds))
    pairs = list(zip(exact, semantic, strict=True))
    more = sorted(1000 * (one.p50_s - other.p50_s) for other, one in pairs)
    click.echo(f"exact hit, p50: {1000 * _median(exact):.2f} ms")
    click.echo(f"semantic hit, p50: {1000 * _median(semantic):.2f} ms")
    click.echo(f"difference, median of {rounds} rounds: {more[rounds // 2]:.2f} ms")


@contextmanager
def _mostly_hits(url: str, tier: str, results: Sequence[WrkResult]) -> Iterator[None]:
    """Raise `LoadTestError` if too few requests of the load that the body adds hit in a tier."""
    before = _metric(url, "lookups_total", tier=tier, result="hit")
    yield
    hits = _metric(url, "lookups_total", tier=tier, result="hit") - before
    requests = results[-1].requests
    if hits < _LEAST_HITS * requests:
        raise LoadTestError(f"only {hits:.0f} of {requests} requests were {tier} hits")


def _median(results: list[WrkResult]) -> float:
    return float(np.median([one.p50_s for one in results]))


def _metric(url: str, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics") as response:  # noqa: S310
        text = response.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"cacheproxy_{name}" and labels.items() <= sample.labels.items()
    )
