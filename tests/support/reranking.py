"""A small reranker of random weights, named as those on the hub are, and a home to serve it."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock
from safetensors.numpy import save_file

from cacheproxy.modelkit.building.reranker import make_reranker
from cacheproxy.modelkit.install import InstalledModel, install, load_installed
from cacheproxy.modelkit.manifest import EncoderSettings, Manifest, load_manifest

NAME = "ms-marco-MiniLM-L-6-v2"
"""Whose place the small one takes: it has the same architecture and vocabulary."""

_BODY = {"bert": "bert", "xlm-roberta": "roberta"}


def random_tensors(
    architecture: str, *, vocabulary: int, hidden: int, inner: int, layers: int, positions: int
) -> dict[str, np.ndarray]:
    """Return random weights; large enough that every part of a model shows in its scores."""
    rng, body = np.random.default_rng(11), _BODY[architecture]
    is_bert = architecture == "bert"
    tensors: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, scale: float = 0.2, offset: float = 0.0) -> None:
        tensors[name] = (offset + rng.normal(size=shape) * scale).astype(np.float32)

    def add_linear(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", hidden, offset=1.0)
        add(f"{name}.bias", hidden)

    embeddings = f"{body}.embeddings"
    add(f"{embeddings}.word_embeddings.weight", vocabulary, hidden, scale=1.0)
    add(f"{embeddings}.position_embeddings.weight", positions, hidden)
    add(f"{embeddings}.token_type_embeddings.weight", 2 if is_bert else 1, hidden, scale=0.5)
    add_norm(f"{embeddings}.LayerNorm")
    for i in range(layers):
        layer = f"{body}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            add_linear(f"{layer}.attention.self.{part}", hidden, hidden)
        add_linear(f"{layer}.attention.output.dense", hidden, hidden)
        add_norm(f"{layer}.attention.output.LayerNorm")
        add_linear(f"{layer}.intermediate.dense", inner, hidden)
        add_linear(f"{layer}.output.dense", hidden, inner)
        add_norm(f"{layer}.output.LayerNorm")
    if is_bert:
        add_linear("bert.pooler.dense", hidden, hidden)
        add_linear("classifier", 1, hidden)
    else:
        add_linear("classifier.dense", hidden, hidden)
        add_linear("classifier.out_proj", 1, hidden)
    return tensors


def small_manifest(name: str = NAME) -> Manifest:
    """Return the manifest of a small model in the place of a real one."""
    return replace(load_manifest(name), dimensions=32, encoder=EncoderSettings(4, 1e-12))


def home_with_reranker(folder: Path, model_home: Path) -> Path:
    """Return a home that has the installed models of another one, and a small reranker.

    `folder` is of `tmp_path_factory`. The reranker is made once for all processes of a test run.
    """
    models = folder / "models"
    models.mkdir()
    for model in (model_home / "models").iterdir():
        if model.name != NAME:
            (models / model.name).symlink_to(model)
    run = folder.parents[1] if "PYTEST_XDIST_WORKER" in os.environ else folder.parent
    made = run / "made" / NAME
    with FileLock(run / "reranker.lock"):
        if not made.exists():
            _make(made, model_home)
    (models / NAME).symlink_to(made)
    return folder


def _make(place: Path, model_home: Path) -> None:
    tokenizer = next((model_home / "sources").glob("all-MiniLM-L6-v2/tokenizer.json"))
    with TemporaryDirectory() as folder:
        weights = Path(folder, "model.safetensors")
        save_file(
            random_tensors("bert", vocabulary=30_522, hidden=32, inner=64, layers=2, positions=512),
            weights,
        )
        files = {"tokenizer.json": tokenizer, "model.safetensors": weights}
        place.parent.mkdir(exist_ok=True)
        # Not gated: random weights rank at random.
        install(make_reranker(small_manifest(), files, "cpu"), place)


def load_reranker(home: Path) -> InstalledModel:
    """Return the small reranker of such a home."""
    return load_installed(NAME, home)
