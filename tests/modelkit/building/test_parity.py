"""What is built is what `transformers` computes, from one folder of weights named as on the hub.

Random weights of small models: an architecture that is understood wrongly shows on them as on the
real ones, which cannot always be had. The reference embeds a padded batch under a mask, as
sentence-transformers does; ours embeds each text alone, without either.
"""

import importlib
import json
import os
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from reranking import random_tensors, small_manifest
from safetensors.numpy import save_file

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.calibrate import TokenGroups
from cacheproxy.modelkit.building.graph import float_graph, int8_graph
from cacheproxy.modelkit.building.quantize import quantize
from cacheproxy.modelkit.building.weights import read_encoder
from cacheproxy.modelkit.isa import isa_class, weight_bits
from cacheproxy.modelkit.manifest import load_manifest

SMALL_MODEL = "paraphrase-MiniLM-L3-v2"

LENGTHS = (3, 4, 7, 16, 33, 64, 130, 160)
TOLERANCE = 1e-5

BERT = {
    "model_type": "bert",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "max_position_embeddings": 160,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
NOMIC_BERT = BERT | {
    "model_type": "nomic_bert",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}


@pytest.fixture(scope="module")
def reference_library():
    """The libraries `torch` and `transformers`; without them tests are skipped, but not in CI."""
    reason = "pip install '.[parity]' brings the reference implementations"
    for name in ("torch", "transformers"):
        if os.environ.get("CI"):
            importlib.import_module(name)
        else:
            pytest.importorskip(name, reason=reason)
    import torch
    import transformers

    torch.set_num_threads(1)
    return torch, transformers


@pytest.fixture
def embed_reference(reference_library):
    """Return a function that embeds texts, one batch, with the model in a folder."""
    torch, transformers = reference_library

    def embed(folder, texts: list[list[int]], pooling: str) -> np.ndarray:
        model, info = transformers.AutoModel.from_pretrained(
            folder, add_pooling_layer=False, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        longest = max(map(len, texts))
        padding = model.config.pad_token_id
        ids = torch.tensor([text + [padding] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        with torch.no_grad():
            hidden = model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
        shares = mask[:, :, None] / mask.sum(dim=1)[:, None, None]
        pooled = hidden[:, 0] if pooling == "cls" else (hidden * shares).sum(dim=1)
        return torch.nn.functional.normalize(pooled, dim=1).numpy()

    return embed


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        pytest.param("bert, mean", BERT, id="all-MiniLM"),
        pytest.param("bert, cls", BERT, id="bge"),
        # XLM-R's specials: <s> 0, <pad> 1, </s> 2; BERT's architecture counts positions from 0.
        pytest.param("bert, mean", BERT | {"pad_token_id": 1}, id="multilingual-MiniLM"),
        pytest.param("nomic-bert, mean", NOMIC_BERT, id="nomic-embed"),
    ],
)
def test_vectors_are_those_of_transformers(small_model, embed_reference, tmp_path, kind, config):
    manifest, tensors = small_model(kind)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(5)
    texts = [rng.integers(0, config["vocab_size"], length).tolist() for length in LENGTHS * 3]
    encoder = read_encoder(tmp_path / "model.safetensors", manifest)

    exact = OnnxEncoder(float_graph(encoder))
    vectors = np.concatenate([exact.encode(np.array([text])) for text in texts])
    expected = embed_reference(tmp_path, texts, manifest.pooling)

    assert np.abs(vectors - expected).max() <= TOLERANCE
    groups = TokenGroups([rng.integers(0, config["vocab_size"], (24, n)) for n in LENGTHS])
    rough = OnnxEncoder(int8_graph(quantize(encoder, groups, weight_bits(isa_class()))))
    vectors = np.concatenate([rough.encode(np.array([text])) for text in texts])
    assert np.sum(vectors * expected, axis=1).min() > 0.99


def test_weights_in_an_exported_graph_give_the_vectors_of_that_graph(small_model_home):
    manifest = load_manifest(SMALL_MODEL)
    path = small_model_home / "sources" / SMALL_MODEL / manifest.weights
    exported = onnxruntime.InferenceSession(path)
    ours = OnnxEncoder(float_graph(read_encoder(path, manifest)))
    rng = np.random.default_rng(5)

    for length in (3, 16, 33, 128):
        ids = rng.integers(1_000, 30_000, (4, length))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        *_, expected = exported.run(None, inputs)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(ours.encode(ids) - expected).max() <= TOLERANCE


@pytest.fixture
def score_reference(reference_library):
    """Return a function that scores pairs, one batch, with the classifier in a folder."""
    torch, transformers = reference_library

    def score(folder, ids: np.ndarray, types: np.ndarray) -> np.ndarray:
        model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        # The padding that makes one batch of pairs is masked, and moves no position.
        given = {"input_ids": ids, "attention_mask": ids >= 0, "token_type_ids": types}
        padding = model.config.pad_token_id
        given["input_ids"] = np.where(ids < 0, padding, ids)
        if model.config.type_vocab_size == 1:
            del given["token_type_ids"]
        with torch.no_grad():
            return model.eval()(**{k: torch.tensor(v) for k, v in given.items()}).logits.numpy()

    return score


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        pytest.param("bert", {}, id="ms-marco-MiniLM"),
        pytest.param(
            "xlm-roberta",
            {"model_type": "xlm-roberta", "type_vocab_size": 1, "pad_token_id": 1},
            id="bge-reranker",
        ),
    ],
)
def test_scores_are_those_of_transformers(score_reference, tmp_path, architecture, changes):
    config = BERT | {"num_labels": 1, "max_position_embeddings": 162} | changes
    manifest = replace(small_manifest(), architecture=architecture, dimensions=48, max_tokens=160)
    tensors = random_tensors(
        architecture, vocabulary=200, hidden=48, inner=96, layers=2, positions=162
    )
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(6)
    lengths = np.array(LENGTHS[1:] * 3)
    ids = np.full((len(lengths), lengths.max()), -1)
    types = np.zeros_like(ids)
    for row, kinds, length in zip(ids, types, lengths, strict=True):
        row[:length] = rng.integers(3, 200, length)
        kinds[rng.integers(1, length) : length] = 1
    encoder = read_encoder(tmp_path / "model.safetensors", manifest)
    raised = ids + 200 * types if encoder.second is not None else ids
    pairs = [row[:length] for row, length in zip(raised, lengths, strict=True)]

    exact = OnnxEncoder(float_graph(encoder))
    scores = np.concatenate([exact.encode(pair[None]) for pair in pairs])
    expected = score_reference(tmp_path, ids, types)

    assert scores.shape == (len(pairs), 1)
    assert np.abs(scores - expected).max() <= TOLERANCE * np.abs(expected).max()
    groups = TokenGroups([np.stack([p for p in pairs if len(p) == n]) for n in LENGTHS[1:]])
    rough = OnnxEncoder(int8_graph(quantize(encoder, groups, weight_bits(isa_class()))))
    scores = np.concatenate([rough.encode(pair[None]) for pair in pairs])
    assert np.corrcoef(scores[:, 0], expected[:, 0])[0, 1] > 0.99
