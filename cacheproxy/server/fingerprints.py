"""The fingerprints under which a server with some settings keeps entries and evidence.

The routes are assembled with the functions at the end; `served` has all of them without a server,
so that entries of another store can be told apart from those that would never be found here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cacheproxy.errors import ConfigError
from cacheproxy.keys import encode_fields
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.probing import SHALLOW, make_probe
from cacheproxy.probes.static import StaticProbe
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.protocol import model_id
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.judged.namespaces import JudgedNamespaces
from cacheproxy.thresholds.promise import promise_of
from cacheproxy.upstreams.fallback import Upstreams

_OTHER_PROBES = (StaticProbe.name, SHALLOW)
"""Entries under these are found by key whatever the probe is; their own probes are of no use."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server keeps an entry: its partition's fingerprint, and whether its probe counts."""

    fingerprint: str
    has_probe: bool


@dataclass(frozen=True, slots=True)
class Served:
    """What a server serves.

    Attributes:
        places: by the ids of fingerprints (`model_id`), its own and those of other probes.
        evidence: the fingerprint and the kind of each model's evidence.
    """

    places: dict[str, Place]
    evidence: list[tuple[str, str]]


def served(settings: Settings, installed: Sequence[InstalledModel]) -> Served:
    """Return what a server with these settings and models serves.

    Raises:
        ConfigError: an upstream's model has other dimensions, or its TLS files cannot be used.
        ModelError: another model is the probe, and is not installed.
    """
    upstreams = Upstreams(settings.upstreams, Metrics())
    places: dict[str, Place] = {}
    evidence: list[tuple[str, str]] = []
    earns = settings.semantic.mode != "off" and settings.semantic.threshold is None
    for fingerprint, probe in _embeddings(settings, installed, upstreams):
        own = f"{fingerprint}:{probe}"
        for other in _OTHER_PROBES:
            places[model_id(f"{fingerprint}:{other}")] = Place(own, has_probe=False)
        places[model_id(own)] = Place(own, has_probe=True)
        if earns:
            evidence.append((own, promise_of(settings.semantic).kind))
    for fingerprint in _scores(installed, upstreams):
        places[model_id(fingerprint)] = Place(fingerprint, has_probe=False)
    default = next(one for one in installed if one.kind == "embeddings")
    for url in {given.base_url for given in settings.upstreams.values()}:
        with_probe = f"{chat_fingerprint(url, default)}:{WholeProbe.name}"
        places[model_id(url)] = Place(url, has_probe=False)
        places[model_id(with_probe)] = Place(with_probe, has_probe=True)
    if settings.chat.semantic == "on" and settings.chat.threshold is None:
        for model in upstreams.models():
            first = upstreams.first(model)
            fingerprint = chat_fingerprint("" if first is None else first.base_url, default)
            judge = judge_of(model, settings.chat.judge, upstreams)
            named = chat_evidence(f"{fingerprint}:{WholeProbe.name}", model, judge)
            evidence.append((named, JudgedNamespaces.kind))
    return Served(places, evidence)


def _embeddings(
    settings: Settings, installed: Sequence[InstalledModel], upstreams: Upstreams
) -> Iterator[tuple[str, str]]:
    """Yield each model's fingerprint and the name of its probe."""
    local: set[str] = set()
    for one in installed:
        if one.kind == "embeddings":
            local |= {one.name, *one.aliases}
            yield local_fingerprint(one, upstreams), make_probe(settings, one).name
    for name, first in upstreams.embeddings().items():
        if name not in local:
            fingerprint = upstream_fingerprint(first.base_url, name, first.embeddings[name])
            yield fingerprint, WholeProbe.name


def _scores(installed: Sequence[InstalledModel], upstreams: Upstreams) -> Iterator[str]:
    yield from (one.fingerprint for one in installed if one.kind == "rerank")
    for name, first in upstreams.rerankers().items():
        yield upstream_fingerprint(first.base_url, name, "rerank")


def local_fingerprint(model: InstalledModel, upstreams: Upstreams) -> str:
    """Return the fingerprint of a local model's results.

    If an upstream serves the same model, entries come from the one that is tried first.

    Raises:
        ConfigError: the upstream's model has other dimensions.
    """
    having = upstreams.embeddings()
    name = name_upstream(model, upstreams)
    if name is None:
        return model.fingerprint
    first = having[name]
    if first.embeddings[name] != model.dimensions:
        raise ConfigError(
            f"upstreams: {name} has {model.dimensions} dimensions, not {first.embeddings[name]}"
        )
    if not first.before_local:
        return model.fingerprint
    return upstream_fingerprint(first.base_url, name, model.dimensions, model.fingerprint)


def name_upstream(model: InstalledModel, upstreams: Upstreams) -> str | None:
    """Return the name by which an upstream serves a local model, if one does."""
    having = upstreams.embeddings()
    return next((name for name in (model.name, *model.aliases) if name in having), None)


def upstream_fingerprint(*fields: str | int) -> str:
    """Return the fingerprint of results that an upstream's URL and a model's name stand for."""
    return hashlib.sha256(encode_fields("upstream", *fields)).hexdigest()


def chat_fingerprint(base_url: str, default: InstalledModel) -> str:
    """Return the fingerprint of an upstream's completions, found by the default model."""
    return f"chat:{base_url}:{default.fingerprint}"


def chat_evidence(fingerprint: str, model: str, judge: str | None) -> str:
    """Return the fingerprint of the evidence about a model's completions, probe included."""
    return f"{fingerprint}:{model}:{judge or 'compared'}"


def judge_of(model: str, setting: str, upstreams: Upstreams) -> str | None:
    """Return the name of the model that judges answers of a model, or None.

    By default it is the model itself, unless its upstream uses the callers' own keys: the proxy
    then has no key for its own calls.
    """
    if setting == "none":
        return None
    if setting != "auto":
        return setting
    return None if upstreams.passes_authorization(model) else model
