import numpy as np
import pytest

from cacheproxy.modelkit.manifest import EncoderSettings, HubSource, Manifest, Prefixes

VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, MAX_TOKENS = 200, 48, 96, 2, 4, 160


def small_manifest(**changes) -> Manifest:
    fields = {
        "name": "small",
        "aliases": (),
        "kind": "embeddings",
        "architecture": "bert",
        "encoder": EncoderSettings(HEADS, 1e-12),
        "pooling": "mean",
        "max_tokens": MAX_TOKENS,
        "dimensions": HIDDEN,
        "prefixes": Prefixes(),
        "matryoshka": (),
        "files": {},
        "sources": (HubSource("someone/something", "main"),),
    }
    return Manifest(**fields | changes)


class RandomWeights:
    """Random tensors by name; large enough that every part of a model shows in its vectors."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, name: str, *shape: int, scale: float = 0.2, offset: float = 0.0) -> None:
        values = offset + self._rng.normal(size=shape) * scale
        self.tensors[name] = values.astype(np.float32)

    def add_norm(self, name: str) -> None:
        self.add(f"{name}.weight", HIDDEN, offset=1.0)
        self.add(f"{name}.bias", HIDDEN)


@pytest.fixture(scope="session")
def make_manifest():
    """Return a function that gives the manifest of a small model, with changes."""
    return small_manifest


@pytest.fixture(scope="session")
def bert_tensors():
    """Random weights of a small BERT, named as the real one's are."""
    weights = RandomWeights()
    weights.add("embeddings.word_embeddings.weight", VOCABULARY, HIDDEN, scale=1.0)
    weights.add("embeddings.position_embeddings.weight", MAX_TOKENS, HIDDEN)
    weights.add("embeddings.token_type_embeddings.weight", 2, HIDDEN)
    weights.add_norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        sizes = {
            f"{layer}.attention.self.query": (HIDDEN, HIDDEN),
            f"{layer}.attention.self.key": (HIDDEN, HIDDEN),
            f"{layer}.attention.self.value": (HIDDEN, HIDDEN),
            f"{layer}.attention.output.dense": (HIDDEN, HIDDEN),
            f"{layer}.intermediate.dense": (INNER, HIDDEN),
            f"{layer}.output.dense": (HIDDEN, INNER),
        }
        for name, shape in sizes.items():
            weights.add(f"{name}.weight", *shape)
            weights.add(f"{name}.bias", shape[0])
        weights.add_norm(f"{layer}.attention.output.LayerNorm")
        weights.add_norm(f"{layer}.output.LayerNorm")
    return weights.tensors


@pytest.fixture(scope="session")
def nomic_bert_tensors():
    """Random weights of a small NomicBERT, named as the real one's are."""
    weights = RandomWeights()
    weights.add("embeddings.word_embeddings.weight", VOCABULARY, HIDDEN, scale=1.0)
    weights.add("embeddings.token_type_embeddings.weight", 2, HIDDEN)
    weights.add_norm("emb_ln")
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        weights.add(f"{layer}.attn.Wqkv.weight", 3 * HIDDEN, HIDDEN)
        weights.add(f"{layer}.attn.out_proj.weight", HIDDEN, HIDDEN)
        weights.add(f"{layer}.mlp.fc11.weight", INNER, HIDDEN)
        weights.add(f"{layer}.mlp.fc12.weight", INNER, HIDDEN)
        weights.add(f"{layer}.mlp.fc2.weight", HIDDEN, INNER)
        weights.add_norm(f"{layer}.norm1")
        weights.add_norm(f"{layer}.norm2")
    return weights.tensors


@pytest.fixture(scope="session")
def small_model(bert_tensors, nomic_bert_tensors):
    """Return a function that gives the manifest and the tensors of a small model by its kind."""
    nomic_bert = small_manifest(
        architecture="nomic-bert", encoder=EncoderSettings(HEADS, 1e-12, 1000.0)
    )
    models = {
        "bert, mean": (small_manifest(), bert_tensors),
        "bert, cls": (small_manifest(pooling="cls"), bert_tensors),
        "nomic-bert, mean": (nomic_bert, nomic_bert_tensors),
    }
    return models.__getitem__
