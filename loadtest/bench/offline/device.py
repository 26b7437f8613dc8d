"""A model on a device: built, gated, compared with the float model on the CPU, and timed.

On a machine with a GPU, `bench device --device cuda` takes some minutes with everything that it
needs: the build, if there is none yet, included. With `--device cpu` it runs anywhere.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import click
import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ModelError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.building.corpus import read_corpus
from cacheproxy.modelkit.building.graph import float_graph
from cacheproxy.modelkit.gate.measure import embed
from cacheproxy.modelkit.install import InstalledModel, build_model, load_installed
from cacheproxy.modelkit.isa import isa_class
from cacheproxy.modelkit.manifest import load_manifest, models_folder
from cacheproxy.settings.device import Device

from ...servers.processes import free_port, running_server, serve_command
from ...traffic.target import endpoint
from ..options import model_flags, settings_of, smoke_flag
from ..wrk import body_of, has_wrk, load_once
from .contenders import float_encoder

_TEXTS = (1, 8, 32, 128, 512)
_TOKENS = (16, 50, 128, 256)
_UNSEEN_PER_S = 20_000


@click.command()
@smoke_flag(calls=1, seconds=1, most_texts=8, clients=(4,), compared=8)
@model_flags
@click.option("--device", type=click.Choice(get_args(Device)), default="cpu", show_default=True)
@click.option("--calls", default=30, show_default=True, help="calls for each batch")
@click.option("--most-texts", default=512, show_default=True, help="texts of the largest batch")
@click.option("--compared", default=1_000, show_default=True, help="texts compared with float")
@click.option("--clients", multiple=True, default=(64, 256), help="connections over HTTP")
@click.option("--seconds", default=6, show_default=True, help="of each load over HTTP")
def main(
    model: str,
    home: Path | None,
    device: Device,
    calls: int,
    most_texts: int,
    compared: int,
    clients: tuple[int, ...],
    seconds: int,
) -> None:
    """A model on a device, from its build to texts/s.

    Builds and gates the model for the device unless it is installed, and prints: how near its
    vectors are to those of the float model on the CPU, the time of a batch by its size, memory,
    unseen texts/s over HTTP, and what a server says that cannot have the device.
    """
    folder = settings_of(home).home
    installed = _installed(load_manifest(model).name, folder, device)
    click.echo(f"{installed.name} on {device} ({isa_class(device)})")
    encoder = OnnxEncoder(installed.graph, device=device)
    _compare(installed, folder, encoder, compared)
    _time_batches(encoder, calls, most_texts)
    _show_memory(device)
    if has_wrk():
        for count in clients:
            _load_server(installed, folder, device, count, seconds)
    _show_fallback(installed, folder)


def _installed(name: str, home: Path, device: Device) -> InstalledModel:
    try:
        installed = load_installed(name, home, device)
    except ModelError:
        started = time.perf_counter()
        installed = build_model(name, home, device)
        click.echo(f"built, and passed the gate, in {time.perf_counter() - started:.0f} s")
    return installed


def _compare(installed: InstalledModel, home: Path, encoder: OnnxEncoder, count: int) -> None:
    corpus = read_corpus(models_folder())
    texts = [*corpus.held_out, *corpus.calibration][:count]
    ids = Tokenizer(installed.tokenizer_json, installed.max_tokens).encode(texts)
    float_model = OnnxEncoder(float_graph(float_encoder(installed, home)))
    served, original = embed(encoder.encode, ids), embed(float_model.encode, ids)
    cosines = np.sum(served * original, axis=1)
    click.echo(
        f"cosine to float32 on the CPU, {len(texts)} texts: mean {cosines.mean():.7f}, "
        f"least {cosines.min():.7f}"
    )
    alone, among = encoder.encode(_ids(1, 16)), encoder.encode(_ids(64, 16))[:1]
    click.echo(f"alone and among 64: largest difference {np.abs(alone - among).max():.1e}")


def _ids(texts: int, tokens: int) -> NDArray[np.int64]:
    """Return the same first row for any number of texts."""
    return np.random.default_rng(tokens).integers(1_000, 20_000, (texts, tokens))


def _time_batches(encoder: OnnxEncoder, calls: int, most_texts: int) -> None:
    click.echo("\ntexts  tokens       ms   texts/s   tokens/s")
    for tokens in _TOKENS:
        for texts in (each for each in _TEXTS if each <= most_texts):
            ids = _ids(texts, tokens)
            for _ in range(3):
                encoder.encode(ids)
            seconds: list[float] = []
            until = time.perf_counter() + 2
            while len(seconds) < calls and (not seconds or time.perf_counter() < until):
                started = time.perf_counter()
                encoder.encode(ids)
                seconds.append(time.perf_counter() - started)
            median = statistics.median(seconds)
            rate = texts / median
            click.echo(
                f"{texts:5d}{tokens:8d}{1000 * median:9.2f}{rate:10.0f}{rate * tokens:11.0f}"
            )


def _show_memory(device: Device) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    line = f"\nmemory of this process: {pages * os.sysconf('SC_PAGESIZE') >> 20} MiB"
    if device == "cuda":
        used = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        line += f"; of the GPU: {used.stdout.strip() or 'not known'}"
    click.echo(line)


def _load_server(
    installed: InstalledModel, home: Path, device: Device, clients: int, seconds: int
) -> None:
    corpus = read_corpus(models_folder())
    words = np.array(sorted({word for text in corpus.calibration for word in text.split()}))
    drawn = np.random.default_rng(clients).choice(words, (_UNSEEN_PER_S * seconds, 12))
    bodies = [body_of(" ".join(row), installed.name) for row in drawn.tolist()]
    flags = ("--device", device, "--semantic-mode", "off")
    with running_server(home, installed.name, *flags) as url:
        route = endpoint(url, "embeddings")
        load_once(route, bodies[-2_000 * seconds :], clients=clients, seconds=1)
        found = load_once(route, bodies, clients=clients, seconds=seconds)
    click.echo(
        f"unseen texts of 12 words over HTTP, {clients} clients: {found.requests_per_s:.0f}/s, "
        f"p50 {1000 * found.p50_s:.1f} ms, p99 {1000 * found.p99_s:.1f} ms"
    )


def _show_fallback(installed: InstalledModel, home: Path) -> None:
    command = serve_command(home, installed.name, free_port(), "--device", "cuda")
    done = subprocess.run(  # noqa: S603
        command,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = (done.stderr or done.stdout).strip().splitlines()
    click.echo(f"serve --device cuda without a GPU, exit code {done.returncode}:", file=sys.stdout)
    click.echo(f"  {said[-1] if said else 'nothing'}")
