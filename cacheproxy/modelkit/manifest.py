"""Manifests: what a model is, where its files come from, and the digests that they must have.

One TOML file a model under `models/`, shipped inside the wheel; in a source checkout the
repository's own folder is read. A manifest is checked as a whole when it is read, so that nothing
later has to ask whether a field makes sense.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, get_args

from cacheproxy.errors import ModelError

_PACKAGE = Path(__file__).parents[1]

Kind = Literal["embeddings", "rerank"]
Architecture = Literal["bert", "xlm-roberta", "nomic-bert"]
Pooling = Literal["mean", "cls"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


WEIGHTS = ("model.safetensors", "model.onnx")
"""What a file of weights may be called: its name says its format."""


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face hub at one revision.

    `files` says which of the manifest's files it has, and their names there; empty: all, under
    their own names.
    """

    repository: str
    revision: str
    files: Mapping[str, str] = dataclass_field(default_factory=dict)


@dataclass(frozen=True)
class WheelSource:
    """A wheel of a package index that carries files in one of its folders; `files` as above."""

    package: str
    version: str
    folder: str
    files: Mapping[str, str] = dataclass_field(default_factory=dict)


@dataclass(frozen=True)
class Prefixes:
    """What the model wants in front of a text, by the text's role; mostly nothing."""

    query: str = ""
    document: str = ""


@dataclass(frozen=True)
class EncoderSettings:
    """What the encoder computes and its weights do not say; layers and widths they say themselves.

    Attributes:
        heads: of attention.
        epsilon: inside the root of every layer normalisation.
        rotary_base: of the angles, in an architecture that places tokens by rotation, else None.
    """

    heads: int
    epsilon: float
    rotary_base: float | None = None


@dataclass(frozen=True)
class Manifest:
    """A model that can be built.

    Attributes:
        name: its name here, also that of its folder.
        aliases: further names under which clients ask for it.
        kind: what it gives: a vector for a text, or a score for a query and a document.
        architecture: how its weights are named, and what is computed with them.
        encoder: numbers of that computation.
        pooling: how token vectors become one vector: their mean, or the first one ("cls").
        max_tokens: longest input, special tokens counted.
        dimensions: length of its vectors; of a reranker, the width of its layers.
        prefixes: texts put in front of inputs.
        matryoshka: dimensions to which vectors may be cut, as the model was trained for that.
        files: SHA-256 (64 hex) of each file by its name: the tokenizer and one file of weights.
        sources: where the files may be had, in the order to try.
    """

    name: str
    aliases: tuple[str, ...]
    kind: Kind
    architecture: Architecture
    encoder: EncoderSettings
    pooling: Pooling
    max_tokens: int
    dimensions: int
    prefixes: Prefixes
    matryoshka: tuple[int, ...]
    files: Mapping[str, str]
    sources: tuple[HubSource | WheelSource, ...]

    @property
    def weights(self) -> str:
        """The name of the file of weights."""
        return next(name for name in WEIGHTS if name in self.files)


def models_folder() -> Path:
    """Return the folder of manifests: the installed package's, or the source checkout's."""
    installed = _PACKAGE / "models"
    return installed if installed.is_dir() else _PACKAGE.parent / "models"


def list_manifests() -> list[Manifest]:
    """Return all manifests, by name.

    Raises:
        ModelError: one of them is mistaken; the message names the file and the field.
    """
    return [read_manifest(path) for path in sorted(models_folder().glob("*.toml"))]


def load_manifest(name_or_alias: str) -> Manifest:
    """Return the manifest of that name or alias.

    Raises:
        ModelError: there is none, or a manifest is mistaken.
    """
    manifests = list_manifests()
    for manifest in manifests:
        if name_or_alias in (manifest.name, *manifest.aliases):
            return manifest
    known = ", ".join(manifest.name for manifest in manifests)
    raise ModelError(f"no model is called {name_or_alias!r}; known models: {known}")


def load_manifests(names: Iterable[str]) -> list[Manifest]:
    """Return the manifests of the models that are to be served together, in that order.

    Raises:
        ModelError: one is unknown, two names mean the same model, or none of them embeds.
    """
    found: dict[str, str] = {}
    manifests = []
    for name in names:
        manifest = load_manifest(name)
        if manifest.name in found:
            raise ModelError(f"{name} is the same model as {found[manifest.name]}; name it once")
        found[manifest.name] = name
        manifests.append(manifest)
    if all(manifest.kind != "embeddings" for manifest in manifests):
        raise ModelError("model: at least one of the models must be one that embeds")
    return manifests


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a TOML file.

    Raises:
        ModelError: it is not TOML, or a field is missing, unknown or of no use.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{path.name}: {error}") from None
    try:
        manifest = Manifest(
            name=fields.pop("name"),
            aliases=tuple(fields.pop("aliases", ())),
            kind=fields.pop("kind", "embeddings"),
            architecture=fields.pop("architecture"),
            encoder=EncoderSettings(**fields.pop("encoder")),
            pooling=fields.pop("pooling"),
            max_tokens=fields.pop("max_tokens"),
            dimensions=fields.pop("dimensions"),
            prefixes=Prefixes(**fields.pop("prefixes", {})),
            matryoshka=tuple(fields.pop("matryoshka", ())),
            files=MappingProxyType(dict(fields.pop("files"))),
            sources=tuple(_source(dict(source)) for source in fields.pop("sources")),
        )
    except KeyError as error:
        raise ModelError(f"{path.name}: {error.args[0]} is missing") from None
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path.name}: {error}") from None
    for mistake in _mistakes(manifest, fields):
        raise ModelError(f"{path.name}: {mistake}")
    return manifest


def _source(fields: dict[str, Any]) -> HubSource | WheelSource:
    kind = fields.pop("kind")
    if kind == "hub":
        return HubSource(**fields)
    if kind == "wheel":
        return WheelSource(**fields)
    raise ValueError(f"sources: kind {kind!r} is not hub or wheel")


def _mistakes(manifest: Manifest, unknown: Mapping[str, Any]) -> Iterator[str]:
    for field in unknown:
        yield f"{field} is not a field"
    if not (isinstance(manifest.name, str) and _NAME.fullmatch(manifest.name)):
        yield f"name {manifest.name!r} cannot name a folder"
    if not all(isinstance(alias, str) and alias for alias in manifest.aliases):
        yield "aliases must be texts"
    for field, known in (("kind", Kind), ("architecture", Architecture), ("pooling", Pooling)):
        value = getattr(manifest, field)
        if value not in get_args(known):
            yield f"{field} {value!r} is not one of {', '.join(get_args(known))}"
    for field, least in (("max_tokens", 3), ("dimensions", 1)):
        value = getattr(manifest, field)
        if type(value) is not int or value < least:
            yield f"{field} must be a whole number of at least {least}"
    for role in ("query", "document"):
        if not isinstance(getattr(manifest.prefixes, role), str):
            yield f"prefixes: {role} must be a text"
    if not all(type(cut) is int and 0 < cut < manifest.dimensions for cut in manifest.matryoshka):
        yield "matryoshka must be whole numbers between 0 and dimensions"
    yield from _encoder_mistakes(manifest)
    if manifest.kind == "rerank":
        yield from _reranker_mistakes(manifest)
    for name, digest in manifest.files.items():
        # File names come to lie under the home folder: none may lead out of it.
        if not _is_plain(name):
            yield f"files: {name!r} is not a plain file name"
        if not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            yield f"files: {name} needs a SHA-256 of 64 lower-case hex digits"
    if "tokenizer.json" not in manifest.files:
        yield "files: tokenizer.json is missing"
    if len([name for name in WEIGHTS if name in manifest.files]) != 1:
        yield f"files: exactly one of {' and '.join(WEIGHTS)} is needed"
    yield from _source_mistakes(manifest)


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name == name and name not in ("", "..", ".")


def _source_mistakes(manifest: Manifest) -> Iterator[str]:
    if not manifest.sources:
        yield "sources must name at least one source"
    sourced: set[str] = set()
    for source in manifest.sources:
        sourced |= (source.files or manifest.files).keys()
        for name, theirs in source.files.items():
            if name not in manifest.files:
                yield f"sources: {name} is not one of the files"
            if not isinstance(theirs, str) or ".." in PurePosixPath(theirs).parts or not theirs:
                yield f"sources: {theirs!r} cannot be the name of {name} there"
    for name in sorted(manifest.files.keys() - sourced):
        yield f"sources: none has {name}"


def _reranker_mistakes(manifest: Manifest) -> Iterator[str]:
    if manifest.architecture == "nomic-bert":
        yield "architecture of a reranker must be bert or xlm-roberta"
    if manifest.pooling != "cls":
        yield "pooling of a reranker must be cls"
    if manifest.prefixes != Prefixes() or manifest.matryoshka:
        yield "prefixes and matryoshka do not belong to a reranker"


def _encoder_mistakes(manifest: Manifest) -> Iterator[str]:
    encoder = manifest.encoder
    if type(encoder.heads) is not int or encoder.heads < 1 or manifest.dimensions % encoder.heads:
        yield "encoder: heads must be a whole number that divides dimensions"
    if type(encoder.epsilon) is not float or not 0 < encoder.epsilon < 1:
        yield "encoder: epsilon must be a number between 0 and 1"
    base = encoder.rotary_base
    if (manifest.architecture == "nomic-bert") != (base is not None):
        yield "encoder: rotary_base belongs to nomic-bert, and only to it"
    elif base is not None and (type(base) not in (int, float) or not 1 < base < math.inf):
        yield "encoder: rotary_base must be a number above 1"
