"""Weights that are kept beside their graphs: the same vectors, the same fingerprint, one copy."""

import json

import numpy as np
import pytest

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.built import BuiltModel, Probes
from cacheproxy.modelkit.building.calibrate import TokenGroups
from cacheproxy.modelkit.building.graph import int8_graph
from cacheproxy.modelkit.building.quantize import quantize
from cacheproxy.modelkit.building.weights import encoder_from_tensors
from cacheproxy.modelkit.external import move_weights
from cacheproxy.modelkit.install import install, load_installed, model_folder
from cacheproxy.modelkit.isa import isa_class


@pytest.fixture
def graph(small_model):
    manifest, tensors = small_model("bert, mean")
    groups = [np.random.default_rng(1).integers(0, 200, (24, length)) for length in (3, 16, 64)]
    return int8_graph(quantize(encoder_from_tensors(tensors, manifest), TokenGroups(groups), 7))


@pytest.fixture
def whole(graph, installed):
    record = json.loads((installed.graph.parent / "model.json").read_text())
    for field in ("sha256", "seal", "graph_sha256"):
        record.pop(field, None)
    probes = Probes(np.zeros((200, 256), np.float16), graph)

    class Report:
        def as_dict(self):
            return {}

        def as_text(self):
            return ""

    return BuiltModel(graph, installed.tokenizer_json, probes, Report(), isa_class(), record)


def test_the_vectors_and_the_fingerprint_are_those_of_the_whole_graph(whole, graph, tmp_path):
    models = []
    for home, built in (("whole", whole), ("moved", move_weights(whole))):
        name = built.record["name"]
        folder = model_folder(name, tmp_path / home)
        folder.parent.mkdir(parents=True)
        install(built, folder)
        models.append(load_installed(name, tmp_path / home))
    ids = np.random.default_rng(2).integers(0, 200, (5, 40))
    vectors = [
        OnnxEncoder(path).encode(ids).tobytes()
        for m in models
        for path in (m.graph, m.shallow_probe)
    ]

    assert len(set(vectors)) == 1
    assert models[0].fingerprint == models[1].fingerprint
    assert models[1].graph.stat().st_size < len(graph)


def test_what_graphs_have_in_common_is_kept_once(whole, graph):
    moved = move_weights(whole)

    (weights,) = moved.weights.values()
    assert moved.probes.shallow == moved.graph
    assert len(moved.graph) < len(graph)
    assert weights
