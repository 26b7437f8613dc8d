"""The embedded store full of entries: written, looked up by probe, and opened again.

Probes are those of texts: drawn from files, then made up, and every second one near to another. A
process fills a store's file as a server does; another opens it. Each also measures how long its
event loop stood still. A file of `--path` that a run has filled is only opened again.
"""

import asyncio
import multiprocessing
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
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Entry, Partition

from ...traffic.scenario import Mix
from ...traffic.texts import TextSource, read_files
from ..options import PATH, model_flags, settings_of, smoke_flag

_PART = 64
"""Entries in a write: a request of the middle size."""

_STORED = Mix(paraphrase=0.25, typo=0.25, unseen=0.5)
_ASKED = Mix(paraphrase=0.4, typo=0.4, unseen=0.2)
_WORDS = (5, 15)
_RECORD_BYTES = 1_650
"""A 384-dimensional embedding with its header."""

_LIVES_S = 30 * 86_400
_TICK_S = 1e-3
_PARTITION = Partition("0" * 32, "benchmark")

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass
class _Pauses:
    """How long an event loop stood still, ms: each time by which a timer was late."""

    ms: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"p99.9 {np.quantile(self.ms, 0.999):.1f} ms, longest {max(self.ms):.1f} ms"


@dataclass
class _Filled:
    seconds: float
    pauses: _Pauses


@dataclass
class _Opened:
    """What a restart showed; `scores` are of the neighbours found, NaN for none."""

    found_after_s: float
    rss_bytes: int
    probes: int
    scores: Floats
    times_ms: NDArray[np.float64]
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
    with tempfile.TemporaryDirectory() as folder:
        stored, asked = _probes(home, model, entries, queries, [str(file) for file in files])
        np.save(f"{folder}/stored.npy", stored)
        np.save(f"{folder}/asked.npy", asked)
        if path is None or not path.exists():
            path = path or Path(folder) / "store"
            filled = _in_process(_fill, path, f"{folder}/stored.npy")
            each_us = 1e6 * filled.seconds / entries
            click.echo(f"{entries} entries written and indexed, {each_us:.0f} us each")
            click.echo(f"event loop meanwhile, snapshots included: pauses {filled.pauses}")
        best = np.concatenate([(part @ stored.T).max(axis=1) for part in np.array_split(asked, 10)])
        opened = _in_process(_open, path, f"{folder}/asked.npy")
    right = float(np.mean(opened.scores >= best - 1e-5))
    p50, p99 = np.quantile(opened.times_ms, (0.5, 0.99))
    click.echo(f"after a restart, neighbours are found after {opened.found_after_s:.2f} s")
    click.echo(
        f"memory: {opened.rss_bytes / opened.probes:.0f} bytes each of {opened.probes} probes"
    )
    click.echo(f"recall@1 against brute force: {right:.3f}")
    click.echo(f"lookup by probe: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    click.echo(f"event loop meanwhile: pauses {opened.pauses}")


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
        return rows[np.linalg.norm(rows, axis=1) > 0.5]

    return encoded(stored), encoded(asked)


def _in_process(call: Callable[[Path, str], T], path: Path, probes: str) -> T:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, path, probes).result()


def _fill(path: Path, probes: str) -> _Filled:
    return asyncio.run(_write(path, np.load(probes)))


async def _write(path: Path, probes: Floats) -> _Filled:
    rng = np.random.default_rng(1)
    expires_at = time.time() + _LIVES_S
    store = EmbeddedStore(path, max_bytes=2**62)
    await store.open()
    async with _watched() as pauses:
        began_at = time.perf_counter()
        for start in tqdm(range(0, len(probes), _PART), desc="filling", unit_scale=_PART):
            await store.put_many(
                [
                    Entry(
                        row.to_bytes(32, "little"),
                        _PARTITION,
                        rng.bytes(_RECORD_BYTES),
                        expires_at,
                        probe=probes[row],
                    )
                    for row in range(start, min(start + _PART, len(probes)))
                ]
            )
        seconds = time.perf_counter() - began_at
    await store.close()
    return _Filled(seconds, pauses)


def _open(path: Path, probes: str) -> _Opened:
    return asyncio.run(_look_up(path, np.load(probes)))


async def _look_up(path: Path, probes: Floats) -> _Opened:
    before = _rss_bytes()
    began_at = time.perf_counter()
    store = EmbeddedStore(path, max_bytes=2**62)
    await store.open()
    while await store.nearest(_PARTITION, probes[:1]) == [None]:
        await asyncio.sleep(0.01)
    found_after_s = time.perf_counter() - began_at
    rss_bytes = _rss_bytes() - before
    await store.sweep()
    scores, times_ms = [], []
    async with _watched() as pauses:
        for probe in probes:
            began_at = time.perf_counter()
            (found,) = await store.nearest(_PARTITION, probe[None])
            times_ms.append(1e3 * (time.perf_counter() - began_at))
            scores.append(np.nan if found is None else found.score)
    documents = int(store.stats().index.documents)
    await store.close()
    return _Opened(
        *(found_after_s, rss_bytes, documents),
        *(np.array(scores, np.float32), np.array(times_ms), pauses),
    )


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
