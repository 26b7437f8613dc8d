"""Bulk ingestion beside the engine's own rate: `cacheproxy embed` on chunks made from real texts.

The files' texts are cut into chunks and repeated with a different number in each, so that no two
are equal. The engine alone embeds a sample of them before and after the command runs.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import click
import numpy as np

from cacheproxy.modelkit.install import InstalledModel, load_installed
from cacheproxy.modelkit.manifest import load_manifest

from .engine import read_texts
from .offline.contenders import Ours
from .options import model_flags, settings_of, smoke_flag

_SAMPLE = 1_000
_PAUSE_S = 0.25


@click.command()
@smoke_flag(chunks=200)
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@model_flags
@click.option("--chunks", default=200_000, show_default=True)
@click.option("--words", default=60, show_default=True, help="in a chunk, at most")
@click.option("--form", default="npy", show_default=True, help="of the output")
def main(
    files: tuple[Path, ...], model: str, home: Path | None, chunks: int, words: int, form: str
) -> None:
    """Bulk ingestion: its rate and memory, beside the engine alone.

    FILES are JSONL with texts in a field text, query, a, or prompt; without files, the calibration
    texts of the package.
    """
    settings = settings_of(home)
    installed = load_installed(load_manifest(model).name, settings.home)
    with tempfile.TemporaryDirectory() as scratch:
        corpus, output = Path(scratch) / "corpus.jsonl", Path(scratch) / f"vectors.{form}"
        made = list(islice(_chunks(read_texts(files), words), chunks))
        with corpus.open("w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in made)
        sample = made[:: max(1, len(made) // _SAMPLE)]
        del made
        engine = [_engine_rate(installed, settings.batching.threads, sample)]
        command = ["embed", corpus, "--output", output, "--home", settings.home]
        seconds, memory = _run([*map(str, [*command, "--model", installed.name])])
        engine.append(_engine_rate(installed, settings.batching.threads, sample))
        rate, alone = chunks / seconds, float(np.mean(engine))
        middle = memory[len(memory) // 4 : max(len(memory) // 2, 1)] or memory
        late = memory[3 * len(memory) // 4 :] or memory
        click.echo(f"embed: {chunks:,} chunks in {seconds:.1f} s, {rate:,.0f}/s, start included")
        shown = ", ".join(f"{one:,.0f}" for one in engine)
        click.echo(f"engine alone: {shown} chunks/s before and after; ratio {rate / alone:.2f}")
        click.echo(
            f"memory: {max(middle):,.0f} MB in the second quarter, {max(late):,.0f} MB in the last"
        )


def _chunks(texts: Sequence[str], words: int) -> Iterator[str]:
    """Yield pieces of the texts without end, each with a number of its own."""
    number = count()
    while True:
        for text in texts:
            split = text.split()
            for start in range(0, len(split), words):
                yield f"{next(number)} {' '.join(split[start : start + words])}"


def _engine_rate(installed: InstalledModel, threads: int, texts: Sequence[str]) -> float:
    engine = Ours(installed, threads=threads, max_tokens=256)
    engine.embed(texts[:100])
    started = time.perf_counter()
    for start in range(0, len(texts), 1_000):
        engine.embed(texts[start : start + 1_000])
    return len(texts) / (time.perf_counter() - started)


def _run(arguments: Sequence[str]) -> tuple[float, list[float]]:
    """Return the seconds that a command takes, and its resident memory over time, MB."""
    started, memory = time.perf_counter(), list[float]()
    process = subprocess.Popen([sys.executable, "-m", "cacheproxy", *arguments])  # noqa: S603
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            memory.append(int(resident.split()[1]) / 1_024)
        except (OSError, StopIteration):
            pass
        time.sleep(_PAUSE_S)
    if process.returncode:
        raise click.ClickException(f"cacheproxy embed ended with {process.returncode}")
    return time.perf_counter() - started, memory or [0.0]
