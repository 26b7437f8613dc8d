"""What is installed is whole, is for this CPU, and has passed its gate."""

import dataclasses
import json
import shutil

import pytest

from cacheproxy.errors import ModelCorrupt, ModelError, ModelMissing
from cacheproxy.modelkit import install
from cacheproxy.modelkit.gate.gate import GateReport, Quality, require_pass
from cacheproxy.modelkit.install import load_installed, model_folder, seal_of
from cacheproxy.modelkit.isa import weight_bits, x86_class
from cacheproxy.modelkit.manifest import (
    list_manifests,
    load_manifest,
    load_manifests,
    models_folder,
    read_manifest,
)
from cacheproxy.modelkit.probing import probe_model
from cacheproxy.settings.settings import Settings

MODEL = "all-MiniLM-L6-v2"
FLOAT = Quality(sts=0.82, recall_at_1=0.6, recall_at_10=0.9)
GOOD = GateReport(
    texts=300,
    cosine_mean=0.999,
    cosine_p1=0.99,
    cosine_least=0.98,
    neighbour_agreement=0.95,
    pairs=200,
    queries=46,
    served=FLOAT,
    original=FLOAT,
    invariance_checks=100,
    invariance_failures=0,
)


@pytest.fixture
def home(model_home, tmp_path):
    shutil.copytree(model_home / "models", tmp_path / "models")
    return tmp_path


def change_record(home, **changes):
    path = model_folder(MODEL, home) / "model.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record | {"seal": seal_of(record)}))


def test_a_model_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(ModelMissing):
        load_installed(MODEL, tmp_path)


def test_the_installed_model_says_what_it_is(installed):
    assert (installed.dimensions, installed.max_tokens) == (384, 256)
    assert installed.vocabulary_size == len(installed.static_probe) == 30_522
    assert len(bytes.fromhex(installed.fingerprint)) == 32
    assert installed.graph.stat().st_size < 25_000_000


@pytest.mark.parametrize("changes", [{"isa": "another"}, {"format": 0}])
def test_a_model_of_another_cpu_or_format_is_to_be_built_again(home, changes):
    change_record(home, **changes)

    with pytest.raises(ModelCorrupt):
        load_installed(MODEL, home)


@pytest.mark.parametrize("changes", [{"max_tokens": 128}, {"pooling": "cls"}])
def test_the_fingerprint_changes_with_whatever_changes_vectors(home, installed, changes):
    change_record(home, **changes)

    assert load_installed(MODEL, home).fingerprint != installed.fingerprint


def test_the_fingerprint_changes_with_the_runtime(home, installed, monkeypatch):
    monkeypatch.setattr(install, "version", lambda _: "0.0.0")

    assert load_installed(MODEL, home).fingerprint != installed.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"cosine_mean": 0.99},
        {"cosine_p1": 0.98},
        {"cosine_mean": float("nan")},
        {"neighbour_agreement": 0.8},
        {"served": dataclasses.replace(FLOAT, sts=0.81)},
        {"served": dataclasses.replace(FLOAT, recall_at_1=0.5)},
        {"served": dataclasses.replace(FLOAT, recall_at_10=0.8)},
        {"invariance_failures": 1},
    ],
)
def test_a_model_that_fails_one_demand_is_not_installed(changes):
    require_pass(GOOD, MODEL)
    with pytest.raises(ModelError, match="not installed"):
        require_pass(dataclasses.replace(GOOD, **changes), MODEL)


def test_cpus_without_vnni_get_narrow_weights():
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2"}
    classes = [
        x86_class(frozenset(flags))
        for flags in (avx512 | {"avx512_vnni"}, avx512, {"avx2", "avx_vnni"}, {"avx2"}, set())
    ]

    assert len(set(classes)) == 5
    assert [weight_bits(isa) for isa in classes] == [8, 7, 8, 7, 7]
    assert weight_bits("arm64") == 8


def test_every_manifest_is_sound_and_found_by_its_aliases():
    manifests = list_manifests()

    assert {manifest.name for manifest in manifests} == {
        MODEL,
        "bge-reranker-base",
        "bge-small-en-v1.5",
        "ms-marco-MiniLM-L-6-v2",
        "nomic-embed-text-v1.5",
        "paraphrase-MiniLM-L3-v2",
        "paraphrase-multilingual-MiniLM-L12-v2",
    }
    for manifest in manifests:
        for name in (manifest.name, *manifest.aliases):
            assert load_manifest(name) == manifest
    with pytest.raises(ModelError, match="known models"):
        load_manifest("nothing-like-it")


def test_a_reranker_is_served_beside_a_model_that_embeds_and_is_no_probe():
    reranker = "ms-marco-MiniLM-L-6-v2"

    assert [one.kind for one in load_manifests([reranker, MODEL])] == ["rerank", "embeddings"]
    with pytest.raises(ModelError, match="one that embeds"):
        load_manifests([reranker])
    with pytest.raises(ModelError, match="embeds nothing"):
        probe_model(Settings(semantic={"probe": reranker}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "nomic', 'nome = "nomic'),
        ('pooling = "mean"', 'pooling = "median"'),
        ('architecture = "nomic-bert"', 'architecture = "gpt"'),
        ('architecture = "nomic-bert"', 'architecture = "bert"'),
        ("max_tokens = 8192", "max_tokens = 1.5"),
        ("max_tokens = 8192", 'max_tokens = 8192\nkind = "ranks"'),
        ("max_tokens = 8192", 'max_tokens = 8192\nkind = "rerank"'),
        ("matryoshka = [512,", "matryoshka = [768,"),
        ("matryoshka = [512,", "matryoshka = [0.5,"),
        ('"tokenizer.json" =', '"../tokenizer.json" ='),
        ('"tokenizer.json" =', '"tokens.json" ='),
        ('kind = "hub"', 'kind = "hubs"'),
        ('kind = "hub"', 'kind = "hub"\nfiles = { "tokenizer.json" = "tokenizer.json" }'),
        ('kind = "hub"', 'kind = "hub"\nfiles = { "merges.txt" = "merges.txt" }'),
        ('kind = "hub"', 'kind = "hub"\nfiles = { "model.safetensors" = "../model" }'),
        ("dimensions = 768", "dimensions ="),
        ("dimensions = 768", "dimensions = 768\ncolour = 'red'"),
        ("[encoder]", "[decoder]"),
        ("heads = 12", "heads = 7"),
        ("heads = 12", "heads = '12'"),
        ("heads = 12", "heads = 12\nlayers = 12"),
        ("epsilon = 1e-12", ""),
        ("epsilon = 1e-12", "epsilon = 0.0"),
        ("rotary_base = 1000", ""),
        ("rotary_base = 1000", "rotary_base = 1"),
        ('query = "search_query: "', "query = 1"),
        ('query = "search_query: "', 'question = "search_query: "'),
    ],
)
def test_a_mistaken_manifest_is_refused(tmp_path, old, new):
    text = (models_folder() / "nomic-embed-text-v1.5.toml").read_text()
    assert old in text
    path = tmp_path / "mistaken.toml"
    path.write_text(text.replace(old, new, 1))

    with pytest.raises(ModelError, match=r"mistaken\.toml"):
        read_manifest(path)
