"""Installed models: written by a build and loaded at start-up.

`HOME/models/NAME/` holds the graph, its weights, the tokenizer, the probes and `model.json`, which
names the SHA-256 of each and carries one over itself. A model is loaded only if its files have
those digests, and only on the class of CPU it was built for. Loading imports none of the libraries
that building needs, and takes well under 0.3 s.
"""

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from cacheproxy.errors import ModelCorrupt, ModelError, ModelMissing
from cacheproxy.modelkit.isa import isa_class
from cacheproxy.modelkit.manifest import Kind, Prefixes, load_manifest, load_manifests
from cacheproxy.modelkit.progress import say
from cacheproxy.settings.device import Device

if TYPE_CHECKING:
    from cacheproxy.modelkit.building.built import BuiltModel

FORMAT = 2
"""Format of `model.json`; a model of another format is rebuilt."""

_GRAPH, _TOKENIZER = "model.onnx", "tokenizer.json"
_STATIC, _SHALLOW = "static.npy", "shallow.onnx"
_RECORD = "model.json"


@dataclass(frozen=True)
class InstalledProbes:
    """The probes of an embedding model.

    Attributes:
        static: float16 [vocabulary, 256], a row a token, zero for special tokens; mapped from its
            file, so that memory holds only rows that are used.
        shallow: the shallow probe's ONNX model, a file.
    """

    static: NDArray[np.float16]
    shallow: Path


@dataclass(frozen=True)
class InstalledModel:
    """A model whose files were verified byte for byte.

    Attributes:
        name: the manifest's name.
        aliases: other names by which clients may request it.
        kind: what it gives: vectors of texts, or scores of queries and documents.
        fingerprint: 64 hex; equal fingerprints give equal vectors or scores for equal ids.
        dimensions: length of its vectors; 1 for scores.
        matryoshka: smaller dimensions that it was trained to be cut to.
        max_tokens: longest input, special tokens counted.
        pooling: how token vectors become one vector.
        prefixes: texts put in front of inputs.
        vocabulary_size: number of token ids.
        segment_offset: of a reranker: what is added to ids of token type 1.
        graph: the ONNX model's file.
        tokenizer_json: the tokenizer's definition.
        device: where it runs.
        probes: an embedding model's; None for a reranker.
    """

    name: str
    aliases: tuple[str, ...]
    kind: Kind
    fingerprint: str
    dimensions: int
    matryoshka: tuple[int, ...]
    max_tokens: int
    pooling: str
    prefixes: Prefixes
    vocabulary_size: int
    segment_offset: int
    graph: Path
    tokenizer_json: bytes
    device: Device
    probes: InstalledProbes | None

    @property
    def static_probe(self) -> NDArray[np.float16]:
        """The static probe's table; raises `ModelError` for a reranker."""
        return self._own_probes().static

    @property
    def shallow_probe(self) -> Path:
        """The shallow probe's model; raises `ModelError` for a reranker."""
        return self._own_probes().shallow

    def _own_probes(self) -> InstalledProbes:
        if self.probes is None:
            raise ModelError(f"{self.name} is a reranker: it gives no vectors, and has no probes")
        return self.probes


def model_folder(name: str, home: Path, device: Device = "cpu") -> Path:
    """Return where the model of that name is installed for a device, or would be."""
    return home / "models" / (name if device == "cpu" else f"{name}-{device}")


def load_installed(name: str, home: Path, device: Device = "cpu") -> InstalledModel:
    """Return the installed model, each of its files read once and checked.

    Raises:
        ModelMissing: it is not installed.
        ModelCorrupt: its files differ from what its build wrote, or were built for another class of
            CPU or in another format; it must be rebuilt.
    """
    folder = model_folder(name, home, device)
    try:
        record = json.loads((folder / _RECORD).read_bytes())
    except FileNotFoundError:
        raise ModelMissing(f"{name} is not installed under {home}") from None
    except (OSError, ValueError) as error:
        raise ModelCorrupt(f"{name}: {_RECORD} cannot be read: {error}") from None
    try:
        return _load(name, folder, record, device)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelCorrupt(f"{name}: {_RECORD} is damaged: {error!r}") from None


def load_all(
    names: Sequence[str], home: Path, device: Device = "cpu", kind: Kind | None = None
) -> list[InstalledModel]:
    """Return the installed models of these names, or those of a kind.

    Raises:
        ModelError: one is unknown, not installed, or must be rebuilt.
    """
    return [
        load_installed(manifest.name, home, device)
        for manifest in load_manifests(names)
        if kind in (None, manifest.kind)
    ]


def _load(name: str, folder: Path, record: dict[str, Any], device: Device) -> InstalledModel:
    if record["seal"] != seal_of(record):
        raise ModelCorrupt(f"{name}: {_RECORD} was changed after its build")
    if record["format"] != FORMAT:
        raise ModelCorrupt(f"{name} was built by another version of cacheproxy")
    isa = isa_class(device)
    if record["isa"] != isa:
        raise ModelCorrupt(
            f"{name} was built for CPU class {record['isa']}, but this machine is {isa}"
        )
    digests = record["sha256"]
    for file in digests:
        _verify(name, folder / file, digests[file])
    return InstalledModel(
        name=record["name"],
        aliases=tuple(record["aliases"]),
        kind=record.get("kind", "embeddings"),
        fingerprint=_fingerprint(record),
        dimensions=record["dimensions"],
        matryoshka=tuple(record.get("matryoshka", ())),
        max_tokens=record["max_tokens"],
        pooling=record["pooling"],
        prefixes=Prefixes(**record["prefixes"]),
        vocabulary_size=record["vocabulary_size"],
        segment_offset=record.get("segment_offset", 0),
        graph=folder / _GRAPH,
        tokenizer_json=(folder / _TOKENIZER).read_bytes(),
        device=device,
        probes=_load_probes(folder) if _STATIC in digests else None,
    )


def _load_probes(folder: Path) -> InstalledProbes:
    static = np.load(folder / _STATIC, mmap_mode="r", allow_pickle=False)
    return InstalledProbes(static, folder / _SHALLOW)


def _verify(name: str, path: Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelCorrupt(f"{name}: {path.name} cannot be read: {error.strerror}") from None
    if found != digest:
        raise ModelCorrupt(f"{name}: {path.name} was changed after its build")


def _fingerprint(record: dict[str, Any]) -> str:
    """Return the SHA-256 over everything that a vector depends on, also the runtime version."""
    decisive = {
        # Of the graph with its weights in it, wherever they are kept.
        "graph": record.get("graph_sha256") or record["sha256"][_GRAPH],
        "tokenizer": record["sha256"][_TOKENIZER],
        "pooling": record["pooling"],
        "prefixes": record["prefixes"],
        "max_tokens": record["max_tokens"],
        "isa": record["isa"],
        "onnxruntime": version("onnxruntime"),
    }
    return _digest_of(decisive)


def seal_of(record: dict[str, Any]) -> str:
    """Return the SHA-256 (64 hex) over all of a record but its own seal."""
    return _digest_of({field: value for field, value in record.items() if field != "seal"})


def _digest_of(fields: dict[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def build_model(name: str, home: Path, device: Device = "cpu") -> InstalledModel:
    """Build and install the model of that name or alias; progress goes to standard error.

    Two processes never build it at the same time: the second waits and uses the model that the
    first has installed. An installed model is replaced atomically once the new one passes.

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: it is unknown, its files cannot be fetched, or it fails its gate.
    """
    manifest = load_manifest(name)
    folder = model_folder(manifest.name, home, device)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _sole_builder(folder.name, folder.parent) as waited:
        if waited:
            with suppress(ModelError):
                return load_installed(manifest.name, home, device)
        # Imported late: building needs libraries that loading must not wait for.
        from cacheproxy.modelkit.building.build import build

        built = build(manifest, home, device)
        install(built, folder)
    return load_installed(manifest.name, home, device)


@contextmanager
def _sole_builder(name: str, models: Path) -> Iterator[bool]:
    """Hold the lock for building a model; yield whether it had to wait for the lock."""
    lock = FileLock(models / f".{name}.lock")
    waited = False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"{name} is being built by another process; waiting for it")
        lock.acquire()
        waited = True
    try:
        yield waited
    finally:
        lock.release()


def install(built: "BuiltModel", folder: Path) -> None:
    """Put a built model into its folder, in place of the one that may be there."""
    part = f".{folder.name}.part"
    for leftover in folder.parent.glob(f"{part}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=part, dir=folder.parent))
    files = {_GRAPH: built.graph, _TOKENIZER: built.tokenizer_json, **built.weights}
    if built.probes is not None:
        static = io.BytesIO()
        np.save(static, built.probes.static)
        files |= {_STATIC: static.getvalue(), _SHALLOW: built.probes.shallow}
    record = {
        "format": FORMAT,
        **built.record,
        "isa": built.isa,
        "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    }
    record["seal"] = seal_of(record)
    reports = {
        _RECORD: json.dumps(record, indent=2) + "\n",
        "gate.json": json.dumps(built.report.as_dict(), indent=2) + "\n",
        "gate.txt": built.report.as_text(),
    }
    for file, content in files.items():
        (scratch / file).write_bytes(content)
    for file, text in reports.items():
        (scratch / file).write_text(text, encoding="utf-8")
    scratch.chmod(0o755)  # mkdtemp's 0700 would hide the model from a server of another user
    # A folder cannot be renamed onto a non-empty one, so the old one is moved away first. A
    # process that looks in between finds no model, requests a build, and waits for this one.
    if folder.exists():
        folder.rename(Path(tempfile.mkdtemp(prefix=part, dir=folder.parent)) / "old")
    scratch.rename(folder)
    for leftover in folder.parent.glob(f"{part}*"):
        shutil.rmtree(leftover, ignore_errors=True)
