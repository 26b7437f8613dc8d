"""The embedded store full of entries: written, looked up by probe, and opened again.

Probes are those of texts: drawn from files, then made up, and every second one near to another. One
process fills a store's file as an import does, and saves its index. Another opens it as a server
does, looks up, and goes on writing and looking up until the snapshot has been renewed. A file of
`--path` that a run has filled is only opened again.
"""

import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import load_installed
from cacheproxy.probes.static import StaticProbe
from cacheproxy.stores.embedded.index.snapshots import SMALLEST, folder_of
from cacheproxy.stores.embedded.index.snapshotter import make_all
from cacheproxy.stores.embedded.rows import partition_id
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Entry, Partition

from ...traffic.scenario import Mix
from ...traffic.texts import TextSource, read_files
from ..options import PATH, model_flags, settings_of, smoke_flag

_PART = 64
"""Entries in a write of a server: a request of the middle size."""

_BULK = 256
_RENEWED_WITHIN_S = 300.0

_STORED = Mix(paraphrase=0.25, typo=0.25, unseen=0.5)
_ASKED = Mix(paraphrase=0.4, typo=0.4, unseen=0.2)
_WORDS = (5, 15)
_RECORD_BYTES = 1_650
"""A 384-dimensional embedding with its header."""

_LIVES_S = 30 * 86_400
_TICK_S = 1e-3
_NEAR = 0.9
"""Below this score the semantic tier rarely serves a neighbour."""
_PARTITION = Partition("0" * 32, "benchmark")

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass
class _Pauses:
    """How long an event loop stood still, ms: each time by which a timer was late."""

    ms: list[float] = field(default_factory=list)


@dataclass
class _Filled:
    written_s: float
    indexed_s: float


@dataclass
class _Opened:
    """What a restart showed; `scores` are of the neighbours found, NaN for none."""

    found_after_s: float
    rss_bytes: int
    probes: int
    scores: Floats
    times_ms: NDArray[np.float64]
    written: int
    written_s: float
    times_beside_ms: NDArray[np.float64]
    is_renewed: bool
    pauses: _Pauses


@click.command()
@smoke_flag(entries=5_000, queries=100)
@model_flags
@click.option("--entries", default=200_000, show_default=True)
@click.option("--queries", default=1_000, show_default=True, help="lookups, one at a time")
@click.option("--texts", "files", multiple=True, type=PATH, help="JSONL or lines [made-up texts]")
@click.option("--path", type=PATH, help="a store's file, kept [a temporary one]")
def main(
    entries: int, queries: int, files: tuple[Path, ...], path: Path | None, model: str,
    home: Path | None,
) -> None:  # fmt: skip
    """The embedded store with many entries.

    Shows what an entry costs, how long until neighbours are found after a restart, recall, the time
    of a lookup, and how long the event loop stands still.
    """
    more = max(SMALLEST, entries // 16) + 512
    with tempfile.TemporaryDirectory() as folder:
        drawn, asked = _probes(home, model, entries + more, queries, [str(file) for file in files])
        stored, more_stored = drawn[:-more], drawn[-more:]
        path = path or Path(folder) / "store"
        if not path.exists():
            filled = _in_process(_fill, path, stored)
            each_us = 1e6 / len(stored) * np.array([filled.written_s, filled.indexed_s])
            click.echo(f"{len(stored)} entries: {each_us[0]:.0f} us each to write in bulk, then")
            click.echo(f"{each_us[1]:.0f} us each to index")
        best = np.concatenate([(part @ stored.T).max(axis=1) for part in np.array_split(asked, 10)])
        opened = _in_process(_open, path, asked, more_stored)
    is_right = opened.scores >= best - 1e-5
    click.echo(f"after a restart, neighbours are found after {opened.found_after_s:.2f} s")
    click.echo(
        f"memory: {opened.rss_bytes / opened.probes:.0f} bytes each of {opened.probes} probes"
    )
    click.echo(
        f"recall@1 against brute force: {is_right.mean():.3f}; {is_right[best > _NEAR].mean():.3f}"
        f" of the {(best > _NEAR).mean():.0%} whose nearest has a score above {_NEAR}"
    )
    click.echo(f"lookup by probe: {_quantiles(opened.times_ms)}")
    more_us = 1e6 * opened.written_s / opened.written
    click.echo(
        f"{opened.written} more entries written and indexed, {more_us:.0f} us each; meanwhile,"
    )
    click.echo(f"the snapshot {'' if opened.is_renewed else 'not '}renewed:")
    click.echo(f"lookup by probe: {_quantiles(opened.times_beside_ms)}")
    click.echo(f"pauses of the event loop: {_quantiles(np.array(opened.pauses.ms))}")


def _quantiles(ms: NDArray[np.float64]) -> str:
    median, p99 = np.quantile(ms, (0.5, 0.99))
    return f"p50 {median:.2f} ms, p99 {p99:.2f} ms, longest {ms.max():.1f} ms"


def _probes(
    home: Path | None, model: str, count: int, queries: int, files: list[str]
) -> tuple[Floats, Floats]:
    """Return the probes of texts to be stored, and of texts to be asked for."""
    source = TextSource(1, read_files(files))
    drawn = (source.draw(_STORED, _WORDS, at_s, remember=True).text for at_s in range(count))
    stored = list(tqdm(drawn, desc="texts", total=count, unit_scale=True))
    asked = [source.draw(_ASKED, _WORDS, count, remember=False).text for _ in range(queries)]
    installed = load_installed(model, settings_of(home).home)
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    probe = StaticProbe(installed.static_probe)

    def encoded(texts: list[str]) -> Floats:
        starts = range(0, len(texts), 1000)
        parts = (tokenizer.encode(texts[start : start + 1000]) for start in starts)
        rows = np.concatenate([asyncio.run(probe.encode(part)) for part in parts])
        kept: Floats = rows[np.linalg.norm(rows, axis=1) > 0.5]
        return kept

    return encoded(stored), encoded(asked)


def _in_process(call: Callable[..., T], path: Path, *probes: Floats) -> T:
    """Return the call's result; it runs in another process, as `spawn` starts it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, path, *probes).result()


def _fill(path: Path, probes: Floats) -> _Filled:
    began_at = time.perf_counter()
    asyncio.run(_write(path, probes))
    written_at = time.perf_counter()
    make_all(path, [(partition_id(_PARTITION, probes.shape[1]), probes.shape[1])])
    return _Filled(written_at - began_at, time.perf_counter() - written_at)


async def _write(path: Path, probes: Floats) -> None:
    store = EmbeddedStore(path, max_bytes=2**62, is_indexing=False)
    await store.open()
    for start in tqdm(range(0, len(probes), _BULK), desc="filling", unit_scale=_BULK):
        await store.put_many(_entries(probes, start, _BULK))
    await store.close()


def _entries(probes: Floats, start: int, count: int, first: int = 0) -> list[Entry]:
    expires_at = time.time() + _LIVES_S
    return [
        Entry(
            (first + row).to_bytes(32, "little"),
            _PARTITION,
            os.urandom(_RECORD_BYTES),
            expires_at,
            probe=probes[row],
        )
        for row in range(start, min(start + count, len(probes)))
    ]


def _open(path: Path, asked: Floats, more: Floats) -> _Opened:
    return asyncio.run(_serve(path, asked, more))


async def _serve(path: Path, asked: Floats, more: Floats) -> _Opened:
    before = _rss_bytes()
    began_at = time.perf_counter()
    store = EmbeddedStore(path, max_bytes=2**62)
    await store.open()
    while await store.nearest(_PARTITION, asked[:1]) == [None]:
        await asyncio.sleep(0.01)
    found_after_s = time.perf_counter() - began_at
    rss_bytes = _rss_bytes() - before
    times_ms: list[float] = []
    scores = [await _look_up(store, probe, times_ms) for probe in asked]
    await store.sweep()
    documents = int(store.stats().index.documents)
    files = set(folder_of(path).iterdir())
    beside_ms: list[float] = []
    async with _watched() as pauses:
        began_at = time.perf_counter()
        for number, start in enumerate(tqdm(range(0, len(more), _PART), unit_scale=_PART)):
            await store.put_many(_entries(more, start, _PART, first=2**40))
            await _look_up(store, asked[number % len(asked)], beside_ms)
        written_s = time.perf_counter() - began_at
        renewed_until = time.monotonic() + _RENEWED_WITHIN_S
        while files <= set(folder_of(path).iterdir()) and time.monotonic() < renewed_until:
            await _look_up(store, asked[len(beside_ms) % len(asked)], beside_ms)
            await asyncio.sleep(0.01)
    is_renewed = not files <= set(folder_of(path).iterdir())
    await store.close()
    return _Opened(
        *(found_after_s, rss_bytes, documents, np.array(scores, np.float32), np.array(times_ms)),
        *(len(more), written_s, np.array(beside_ms), is_renewed, pauses),
    )


async def _look_up(store: EmbeddedStore, probe: Floats, times_ms: list[float]) -> float:
    began_at = time.perf_counter()
    (found,) = await store.nearest(_PARTITION, probe[None])
    times_ms.append(1e3 * (time.perf_counter() - began_at))
    return np.nan if found is None else found.score


@asynccontextmanager
async def _watched() -> AsyncIterator[_Pauses]:
    """Measure how long the running event loop stands still."""
    pauses = _Pauses()

    async def watch() -> None:
        while True:
            due_at = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            pauses.ms.append(1e3 * max(0.0, time.perf_counter() - due_at))

    task = asyncio.create_task(watch())
    try:
        await asyncio.sleep(10 * _TICK_S)
        yield pauses
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
