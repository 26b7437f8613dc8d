"""Lookups by probe in a full Redis: `python -m loadtest.semantic_bench --redis URL`.

Fills an empty Redis with entries, tells what one takes in memory and how often the nearest one is
found, then has a server answer exact and semantic hits from it, one client at a time. The hot tier
is off, and the threshold is set by hand, so that every near-duplicate is a hit.
"""

import asyncio
import time
import urllib.request
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
from cacheproxy.settings.sources import load_settings
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.redis.store import RedisStore
from loadtest.wrk import WrkResult, body_of, load, load_once, running_server

_PART = 256
_QUERIES = 500
_TEXTS = 2_000
_CLUSTER = 20
_TTL_S = 3_600
_TEXT = "How do I change the delivery address of order number {} on the website"

Floats = NDArray[np.float32]


@click.command()
@click.option("--redis", "redis_url", required=True, help="an empty Redis with the Query Engine")
@click.option("--entries", default=100_000, show_default=True)
@click.option("--probe", type=click.Choice(["shallow", "static"]), default="shallow")
@click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")
@click.option("--home", type=click.Path(path_type=Path), help="where models live")
@click.option("--rounds", default=5, show_default=True)
def main(
    redis_url: str, entries: int, probe: str, model: str, home: Path | None, rounds: int
) -> None:
    """Measure lookups by probe."""
    given = {"semantic": {"probe": probe}, **({"home": str(home)} if home else {})}
    settings = load_settings(given, None)
    installed = load_installed(model, settings.home)
    name = make_probe(settings, installed).name
    namespace_id = Namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE).id
    partition = Partition(namespace_id, f"{installed.fingerprint}:{name}")
    asyncio.run(_fill(redis_url, partition, entries, installed.dimensions))
    flags = ["--store", redis_url, "--cache-hot-bytes", "0", "--semantic-probe", probe]
    flags += ["--semantic-threshold", "0.9"]
    with running_server(settings.home, model, *flags) as url:
        _hits(url, model, rounds)


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


def _hits(url: str, model: str, rounds: int) -> None:
    stored = [body_of(_TEXT.format(number), model) for number in range(_TEXTS)]
    load(f"{url}/v1/embeddings", stored, clients=8, seconds=10)
    while _metric(url, "writeback_queue_entries"):
        time.sleep(0.1)
    exact: list[WrkResult] = []
    semantic: list[WrkResult] = []
    for turn in tqdm(range(rounds), unit="round"):
        exact.append(load(f"{url}/v1/embeddings", stored, clients=1, seconds=2))
        likely = [
            body_of(f"{_TEXT.format(number)} {'?' * (turn + 1)}", model) for number in range(_TEXTS)
        ]
        before = _metric(url, "lookups_total", tier="semantic", result="hit")
        semantic.append(load_once(f"{url}/v1/embeddings", likely, clients=1, seconds=1))
        hits = _metric(url, "lookups_total", tier="semantic", result="hit") - before
        if hits < 0.95 * semantic[-1].requests:
            click.echo(f"only {hits:.0f} of {semantic[-1].requests} were semantic hits")
    pairs = list(zip(exact, semantic, strict=True))
    more = sorted(1000 * (one.p50_s - other.p50_s) for other, one in pairs)
    click.echo(f"exact hit, p50: {1000 * _median(exact):.2f} ms")
    click.echo(f"semantic hit, p50: {1000 * _median(semantic):.2f} ms")
    click.echo(f"difference, median of {rounds} rounds: {more[rounds // 2]:.2f} ms")


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


if __name__ == "__main__":
    main()
