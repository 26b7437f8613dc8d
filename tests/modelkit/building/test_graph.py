"""The graphs compute what the model's definition says, and nothing depends on batch-mates."""

import numpy as np
import onnxruntime
import pytest
import reference
from safetensors.numpy import load_file

from cacheproxy.errors import ModelError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.building.calibrate import TokenGroups
from cacheproxy.modelkit.building.graph import float_graph, half_graph, int8_graph
from cacheproxy.modelkit.building.quantize import quantize
from cacheproxy.modelkit.building.weights import encoder_from_tensors, read_encoder
from cacheproxy.modelkit.isa import isa_class, weight_bits
from cacheproxy.modelkit.manifest import load_manifest

MODEL = "all-MiniLM-L6-v2"
LENGTHS = (3, 4, 7, 16, 33, 64, 130)
KINDS = ("bert, mean", "bert, cls", "nomic-bert, mean")


def random_groups(vocabulary: int, rows: int = 24, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, (rows, length)) for length in LENGTHS]


@pytest.fixture(scope="module", params=KINDS)
def model(request, small_model):
    return small_model(request.param)


@pytest.fixture(scope="module")
def small_encoder(model):
    manifest, tensors = model
    return encoder_from_tensors(tensors, manifest)


@pytest.fixture(scope="module")
def small_int8(small_encoder):
    return quantize(small_encoder, TokenGroups(random_groups(200)), weight_bits(isa_class()))


def test_the_float_graph_is_the_architectures_definition(small_encoder, model):
    manifest, tensors = model
    encoder = OnnxEncoder(float_graph(small_encoder))
    for ids in random_groups(200, rows=3):
        expected = [reference.embed(tensors, manifest, row.tolist()) for row in ids]
        assert np.abs(encoder.encode(ids) - expected).max() < 1e-5


def test_the_float_graph_of_the_real_model_is_its_definition(model_home, installed):
    sources = model_home / "sources" / MODEL
    manifest = load_manifest(MODEL)
    tensors = load_file(sources / "model.safetensors")
    encoder = read_encoder(sources / "model.safetensors", manifest)
    session = OnnxEncoder(float_graph(encoder))
    texts = ["hello", "How do I reset my password?", "Der Himmel ist blau. " * 20]
    for ids in Tokenizer(installed.tokenizer_json, 256).encode(texts):
        (vector,) = session.encode(np.array([ids]))
        assert np.abs(vector - reference.embed(tensors, manifest, ids)).max() < 1e-5


def test_the_int8_graph_is_near_the_float_graph(small_encoder, small_int8):
    exact, rough = OnnxEncoder(float_graph(small_encoder)), OnnxEncoder(int8_graph(small_int8))
    for ids in random_groups(200, seed=2):
        assert np.sum(exact.encode(ids) * rough.encode(ids), axis=1).min() > 0.99


def test_the_float16_graph_is_next_to_the_float_graph(small_encoder):
    exact, half = OnnxEncoder(float_graph(small_encoder)), OnnxEncoder(half_graph(small_encoder))
    for ids in random_groups(200, seed=2):
        assert np.sum(exact.encode(ids) * half.encode(ids), axis=1).min() > 0.9999


def test_a_vector_has_the_same_bits_in_any_company(small_int8):
    encoder = OnnxEncoder(int8_graph(small_int8))
    rng = np.random.default_rng(3)
    for ids in random_groups(200, rows=40, seed=4):
        alone = np.concatenate([encoder.encode(ids[i : i + 1]) for i in range(len(ids))])
        for size in (2, 3, 8, 31, 40):
            rows = rng.permutation(len(ids))[:size]
            grouped = encoder.encode(ids[rows])
            assert np.array_equal(grouped.view(np.int32), alone[rows].view(np.int32))


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


def test_smoothing_behind_a_gate_is_part_of_the_gated_product(small_int8, model):
    gated = model[0].architecture == "nomic-bert"

    assert {layer.ffn_down.squeeze is None for layer in small_int8.layers} == {gated}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert, mean", "encoder.layer.1.output.dense.weight"),
        ("bert, mean", "embeddings.position_embeddings.weight"),
        ("nomic-bert, mean", "encoder.layers.1.attn.Wqkv.weight"),
        ("nomic-bert, mean", "encoder.layers.0.mlp.fc12.weight"),
    ],
)
def test_missing_or_misshapen_weights_are_refused(small_model, kind, name):
    manifest, tensors = small_model(kind)
    lacking = {key: value for key, value in tensors.items() if key != name}
    misshapen = tensors | {name: tensors[name].T}

    for mistaken in (lacking, misshapen):
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            encoder_from_tensors(mistaken, manifest)


def test_the_weights_of_another_architecture_are_refused(small_model, nomic_bert_tensors):
    manifest, _ = small_model("bert, mean")

    with pytest.raises(ModelError, match="lack"):
        encoder_from_tensors(nomic_bert_tensors, manifest)


def test_fewer_positions_than_the_manifests_tokens_are_refused(make_manifest, bert_tensors):
    with pytest.raises(ModelError, match="160 positions are fewer"):
        encoder_from_tensors(bert_tensors, make_manifest(max_tokens=161))
