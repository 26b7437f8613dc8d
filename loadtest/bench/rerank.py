"""How true a reranker's INT8 scores are, and what a request costs whose documents were seen before.

Real rerankers come from a hub. This one is constructed, so that the benchmark runs without: the
encoder of all-MiniLM-L6-v2 reads both texts, and a head is fitted to tell the rest of a text from
that of others by its first sentence. It ranks far better than chance, and far worse than a model
that was trained to. It is built, quantised and measured as any reranker, and takes the place of
ms-marco-MiniLM-L-6-v2, which has its size.
"""

import json
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from cacheproxy.inference.input import Pair
from cacheproxy.inference.pairs import PairTokenizer
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.corpus import make_pairs, read_corpus
from cacheproxy.modelkit.building.graph import float_graph
from cacheproxy.modelkit.building.reranker import make_reranker
from cacheproxy.modelkit.building.weights import Head, Linear, encoder_from_tensors
from cacheproxy.modelkit.gate.measure import embed
from cacheproxy.modelkit.install import install
from cacheproxy.modelkit.manifest import Manifest, load_manifest, models_folder

from ..servers.processes import running_server
from ..traffic.target import endpoint
from .caller import Caller
from .options import PATH, settings_of, smoke_flag

_EMBEDDER, _RERANKER = "all-MiniLM-L6-v2", "ms-marco-MiniLM-L-6-v2"
_WORDS = ("cache", "store", "request", "answer", "vector", "index", "model", "token")

_SMALL = 0.01
"""Factor by which the head shrinks its input, so that tanh changes nothing that matters."""

_RIDGE = 30.0
"""Relative to the number of pairs. From 3 on the head ranks equally well; with less it hears noise,
that of INT8 included."""

Tensors = dict[str, NDArray[np.float32]]


@click.command()
@smoke_flag(layers=1, distractors=1, rounds=1)
@click.option("--home", type=PATH, help="where models live")
@click.option("--layers", default=6, show_default=True, help="of the encoder that are kept")
@click.option("--distractors", default=3, show_default=True, help="for each query of the fit")
@click.option("--rounds", default=5, show_default=True, help="of the timed requests")
def main(home: Path | None, layers: int, distractors: int, rounds: int) -> None:
    """Reranking: INT8 against float32, and 100 documents of which 90 were seen."""
    given = settings_of(home).home
    with tempfile.TemporaryDirectory(prefix="cacheproxy-rerank-") as folder:
        scratch = Path(folder)
        report = _build(given, scratch, layers, distractors)
        click.echo(report, nl=False)
        with running_server(scratch, _EMBEDDER, "--model", _RERANKER) as url:
            _time_requests(url, rounds)


def _build(home: Path, scratch: Path, layers: int, distractors: int) -> str:
    """Construct and install the reranker beside the embedder; return the gate's report."""
    sources = home / "sources" / _EMBEDDER
    tensors = load_file(sources / "model.safetensors")
    tokenizer_json = (sources / "tokenizer.json").read_bytes()
    manifest = load_manifest(_RERANKER)
    body = {f"bert.{name}": tensor for name, tensor in tensors.items() if _layer(name) < layers}
    weights = scratch / "model.safetensors"
    save_file(body | _fit(body, manifest, tokenizer_json, distractors), weights)
    files = {"tokenizer.json": sources / "tokenizer.json", "model.safetensors": weights}
    models = scratch / "models"
    models.mkdir()
    (models / _EMBEDDER).symlink_to(home / "models" / _EMBEDDER)
    built = make_reranker(manifest, files, "cpu")
    install(built, models / _RERANKER)
    return built.report.as_text()


def _layer(name: str) -> int:
    """Return the number of the layer that a tensor belongs to; -1: to none."""
    found = re.match(r"encoder\.layer\.(\d+)\.", name)
    return -1 if found is None else int(found[1])


def _fit(body: Tensors, manifest: Manifest, tokenizer_json: bytes, distractors: int) -> Tensors:
    """Return a head that maps the first token linearly to a score, by ridge regression."""
    size = manifest.dimensions
    dense = {
        "bert.pooler.dense.weight": np.eye(size, dtype=np.float32) * np.float32(_SMALL),
        "bert.pooler.dense.bias": np.zeros(size, np.float32),
    }
    none = {
        "classifier.weight": np.zeros((1, size), np.float32),
        "classifier.bias": np.zeros(1, np.float32),
    }
    encoder = encoder_from_tensors(body | dense | none, manifest)
    offset = 0 if encoder.second is None else len(encoder.words)
    tokenizer = PairTokenizer(tokenizer_json, manifest.max_tokens, offset)
    candidates = make_pairs(read_corpus(models_folder()).calibration, distractors)
    ids = tokenizer.encode([Pair(*pair) for of_one in candidates for pair in of_one])
    wanted = np.array(
        [1.0 if place == 0 else 0.0 for of_one in candidates for place in range(len(of_one))]
    )
    # A head of `size` scores shows what a head of one may weigh.
    identity = Linear(np.eye(size, dtype=np.float32), np.zeros(size, np.float32))
    seen = replace(encoder, head=Head(encoder.head.dense, identity)) if encoder.head else encoder
    features = embed(OnnxEncoder(float_graph(seen)).encode, ids).astype(np.float64)
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    inputs = (features - mean) / spread
    square = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(size)
    weight = np.linalg.solve(square, inputs.T @ (wanted - wanted.mean())) / spread
    return dense | {
        "classifier.weight": weight[None].astype(np.float32),
        "classifier.bias": np.array([wanted.mean() - mean @ weight], np.float32),
    }


def _time_requests(url: str, rounds: int) -> None:
    rng, caller = np.random.default_rng(3), Caller(endpoint(url, "rerank"))
    unseen_s, mixed_s, seen_s = [], [], []
    inferred = []
    for turn in range(rounds):
        texts = [f"{turn} {i} {' '.join(rng.choice(_WORDS, 40))}" for i in range(110)]
        query = f"what was asked in round {turn}"
        unseen_s.append(_ask(caller, query, texts[:100]))
        with _counted(url) as count:
            mixed_s.append(_ask(caller, query, texts[10:]))
        inferred.append(count[0])
        seen_s.append(_ask(caller, query, texts[10:]))
    click.echo(f"100 documents, none seen         {1000 * np.median(unseen_s):.1f} ms")
    click.echo(f"100 documents, 90 seen           {1000 * np.median(mixed_s):.1f} ms")
    click.echo(f"100 documents, all seen          {1000 * np.median(seen_s):.1f} ms")
    click.echo(f"inferred where 90 were seen      {', '.join(map(str, sorted(set(inferred))))}")


def _ask(caller: Caller, query: str, documents: list[str]) -> float:
    """Return the seconds of a request."""
    body = json.dumps({"query": query, "documents": documents, "return_documents": False})
    started = time.perf_counter()
    caller.post(body)
    return time.perf_counter() - started


@contextmanager
def _counted(url: str) -> Iterator[list[int]]:
    """Count what the reranker infers during the block."""
    count: list[int] = []
    before = _inferred(url)
    yield count
    count.append(_inferred(url) - before)


def _inferred(url: str) -> int:
    name = f'cacheproxy_batch_texts_sum{{model="{_RERANKER}"}} '
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:  # noqa: S310
        lines = response.read().decode().splitlines()
    return int(sum(float(line.removeprefix(name)) for line in lines if line.startswith(name)))
