"""Installing is all or nothing, is done once, and what is damaged afterwards is noticed."""

import threading

import numpy as np
import pytest

import cacheproxy.modelkit.building.build
import cacheproxy.modelkit.install
from cacheproxy.errors import ModelCorrupt, ModelError
from cacheproxy.modelkit.building.built import BuiltModel, Probes
from cacheproxy.modelkit.building.corpus import add_prefixes, group_by_length, read_corpus
from cacheproxy.modelkit.building.distill import PROBE_DIMENSIONS, distill_probe
from cacheproxy.modelkit.gate.gate import GateReport, Quality
from cacheproxy.modelkit.gate.measure import count_batch_effects
from cacheproxy.modelkit.install import build_model, load_installed, model_folder
from cacheproxy.modelkit.isa import isa_class
from cacheproxy.modelkit.manifest import Prefixes, models_folder

MODEL = "all-MiniLM-L6-v2"


def built(graph: bytes) -> BuiltModel:
    record = {
        "name": MODEL,
        "aliases": [],
        "dimensions": 384,
        "max_tokens": 256,
        "vocabulary_size": 4,
        "pooling": "mean",
        "prefixes": {"query": "", "document": ""},
    }
    probe = np.zeros((4, PROBE_DIMENSIONS), np.float16)
    report = GateReport(
        texts=1,
        cosine_mean=1,
        cosine_p1=1,
        cosine_least=1,
        neighbour_agreement=1,
        pairs=1,
        queries=1,
        served=Quality(1, 1, 1),
        original=Quality(1, 1, 1),
        invariance_checks=1,
        invariance_failures=0,
    )
    probes = Probes(probe, b"shallow")
    weights = {"weights.bin": b"weights"}
    return BuiltModel(graph, b"{}", probes, report, isa_class(), record, weights)


@pytest.fixture
def build_gives(monkeypatch):
    """Return a function that sets what the recipe gives, or raises."""

    def set_result(recipe):
        monkeypatch.setattr(cacheproxy.modelkit.building.build, "build", lambda *_: recipe())

    return set_result


def test_a_new_build_replaces_the_old_one_and_leaves_nothing_beside_it(build_gives, tmp_path):
    for graph in (b"first", b"second"):
        build_gives(lambda graph=graph: built(graph))
        assert build_model(MODEL, tmp_path).graph.read_bytes() == graph

    assert load_installed(MODEL, tmp_path).graph.read_bytes() == b"second"
    assert {path.name for path in (tmp_path / "models").iterdir()} <= {MODEL, f".{MODEL}.lock"}


def test_a_build_that_fails_leaves_the_installed_model_alone(build_gives, tmp_path):
    build_gives(lambda: built(b"first"))
    build_model(MODEL, tmp_path)

    def fail():
        raise ModelError("fails its gate")

    build_gives(fail)
    with pytest.raises(ModelError, match="gate"):
        build_model(MODEL, tmp_path)

    assert load_installed(MODEL, tmp_path).graph.read_bytes() == b"first"


def test_two_that_need_a_model_at_the_same_time_build_it_once(build_gives, tmp_path, monkeypatch):
    building, waiting, finish = threading.Event(), threading.Event(), threading.Event()
    builds = []

    def heard(line):
        if "another process" in line:
            waiting.set()

    monkeypatch.setattr(cacheproxy.modelkit.install, "say", heard)

    def slowly():
        builds.append(1)
        building.set()
        assert finish.wait(30)
        return built(b"graph")

    build_gives(slowly)
    graphs = []
    both = [
        threading.Thread(target=lambda: graphs.append(build_model(MODEL, tmp_path).graph))
        for _ in range(2)
    ]
    both[0].start()
    assert building.wait(30)
    both[1].start()
    assert waiting.wait(30)
    finish.set()
    for thread in both:
        thread.join(30)

    assert [graph.read_bytes() for graph in graphs] == [b"graph", b"graph"]
    assert len(builds) == 1


@pytest.mark.parametrize(
    "file",
    ["model.onnx", "weights.bin", "tokenizer.json", "static.npy", "shallow.onnx", "model.json"],
)
@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_a_damaged_file_of_an_installed_model_is_never_used(build_gives, tmp_path, file, damage):
    build_gives(lambda: built(b"graph"))
    build_model(MODEL, tmp_path)
    path = model_folder(MODEL, tmp_path) / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    with pytest.raises(ModelError) as refusal:
        load_installed(MODEL, tmp_path)

    assert len(str(refusal.value).splitlines()) == 1
    if file != "model.json":
        assert isinstance(refusal.value, ModelCorrupt)


def test_held_out_texts_are_never_calibrated_on():
    corpus = read_corpus(models_folder())

    assert len(corpus.held_out) > 250
    assert not set(corpus.held_out) & set(corpus.calibration)


def test_a_missing_corpus_is_told_in_one_line(tmp_path):
    with pytest.raises(ModelError, match="calibration texts"):
        read_corpus(tmp_path)


def test_texts_become_queries_and_documents_by_turns():
    texts = ["a", "b", "c"]

    assert add_prefixes(texts, Prefixes("q: ", "d: ")) == ["q: a", "d: b", "q: c"]
    assert add_prefixes(texts, Prefixes("q: ")) == ["q: a", "b", "q: c"]
    assert add_prefixes(texts, Prefixes()) == texts


def test_texts_are_grouped_by_length_and_none_is_lost():
    groups = group_by_length([[1, 2], [3], [4, 5], [6, 7, 8]])

    assert [group.tolist() for group in groups] == [[[3]], [[1, 2], [4, 5]], [[6, 7, 8]]]


def test_the_gate_sees_a_vector_that_depends_on_its_batch():
    def encode(ids):
        vectors = np.eye(8, dtype=np.float32)[ids[:, 0] % 8]
        return vectors if len(ids) == 1 else np.nextafter(vectors, np.float32(2))

    groups = [np.arange(5)[:, None] + np.zeros((1, length), int) for length in (3, 4, 9)]

    checks, failures = count_batch_effects(encode, groups, 0.0)
    assert checks == failures > 0


def test_the_probe_has_no_direction_for_special_tokens_and_keeps_meaning():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 384)).astype(np.float32)
    vectors[301] = vectors[300] + rng.normal(size=384) * 0.1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    table = distill_probe(lambda ids: vectors[ids[:, 1]], 600, (1, 2), [0, 1, 2])

    assert (table.shape, table.dtype) == ((600, PROBE_DIMENSIONS), np.float16)
    assert not table[:3].any()
    unit = table[3:] / np.linalg.norm(table[3:].astype(np.float32), axis=1, keepdims=True)
    scores = unit.astype(np.float32) @ unit[297].astype(np.float32)
    assert np.argsort(-scores)[1] == 298
