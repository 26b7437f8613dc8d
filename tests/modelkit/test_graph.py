"""The graphs compute what the model's definition says, and nothing depends on batch-mates."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from cacheproxy.errors import ModelError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.calibrate import TokenGroups
from cacheproxy.modelkit.graph import float_graph, int8_graph
from cacheproxy.modelkit.quantize import quantize
from cacheproxy.modelkit.weights import encoder_from_tensors, read_encoder

MODEL = "all-MiniLM-L6-v2"
LENGTHS = (3, 4, 7, 16, 33, 64)

_spec = importlib.util.spec_from_file_location("reference", Path(__file__).parent / "reference.py")
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def random_groups(vocabulary: int, rows: int = 24, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, (rows, length)) for length in LENGTHS]


@pytest.fixture(scope="module")
def small_encoder(small_tensors, small_config):
    return encoder_from_tensors(small_tensors, small_config, 64)


@pytest.fixture(scope="module")
def small_int8(small_encoder):
    return quantize(small_encoder, TokenGroups(random_groups(200)), 8)


def test_the_float_graph_is_bert_with_mean_pooling(small_encoder, small_tensors, small_config):
    encoder = OnnxEncoder(float_graph(small_encoder))
    for ids in random_groups(200, rows=3):
        expected = [reference.embed(small_tensors, small_config, row.tolist()) for row in ids]
        assert np.abs(encoder.encode(ids) - expected).max() < 1e-5


def test_the_float_graph_of_the_real_model_is_its_definition(model_home, installed):
    sources = model_home / "sources" / MODEL
    config = json.loads((sources / "config.json").read_text())
    tensors = load_file(sources / "model.safetensors")
    encoder = read_encoder(sources / "model.safetensors", sources / "config.json", 256)
    session = OnnxEncoder(float_graph(encoder))
    texts = ["hello", "How do I reset my password?", "Der Himmel ist blau. " * 20]
    for ids in Tokenizer(installed.tokenizer_json, 256).encode(texts):
        (vector,) = session.encode(np.array([ids]))
        assert np.abs(vector - reference.embed(tensors, config, ids)).max() < 1e-5


def test_the_int8_graph_is_near_the_float_graph(small_encoder, small_int8):
    exact, rough = OnnxEncoder(float_graph(small_encoder)), OnnxEncoder(int8_graph(small_int8))
    for ids in random_groups(200, seed=2):
        assert np.sum(exact.encode(ids) * rough.encode(ids), axis=1).min() > 0.99


@pytest.mark.parametrize("threads", [1, 2])
def test_a_vector_of_the_real_model_has_the_same_bits_in_any_company(installed, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        installed.graph, options, disabled_optimizers=["SkipLayerNormFusion"]
    )
    serving = OnnxEncoder(installed.graph)
    rng = np.random.default_rng(threads)
    for length in (3, 5, 16, 31, 100, 256):
        ids = rng.integers(1_000, 30_000, (40, length))
        alone = np.concatenate([serving.encode(ids[i : i + 1]) for i in range(len(ids))])
        for size in (2, 3, 8, 31, 40):
            rows = rng.permutation(len(ids))[:size]
            (grouped,) = session.run(None, {"input_ids": ids[rows]})
            assert np.array_equal(grouped.view(np.int32), alone[rows].view(np.int32))


def test_weights_keep_to_seven_bits_where_the_cpu_would_saturate(small_encoder):
    narrow = quantize(small_encoder, TokenGroups(random_groups(200)), 7)
    weights = [
        product.weight
        for layer in narrow.layers
        for site in (layer.qkv, layer.attention_out, layer.ffn_up, layer.ffn_down)
        for product in site.products
    ]

    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 63


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "roberta"},
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
    ],
)
def test_another_architecture_is_refused(tmp_path, small_tensors, small_config, change):
    from safetensors.numpy import save_file

    save_file(small_tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(small_config | change))

    with pytest.raises(ModelError):
        read_encoder(tmp_path / "model.safetensors", tmp_path / "config.json", 64)


def test_missing_or_misshapen_weights_are_refused(small_tensors, small_config):
    name = "encoder.layer.1.output.dense.weight"
    lacking = {key: value for key, value in small_tensors.items() if key != name}
    misshapen = small_tensors | {name: small_tensors[name].T}

    for tensors in (lacking, misshapen):
        with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense"):
            encoder_from_tensors(tensors, small_config, 64)
