"""The probe that the settings choose for a model: a part of the model itself, or another model."""

from collections.abc import Sequence
from functools import partial

from cacheproxy.errors import ModelError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel, load_installed
from cacheproxy.modelkit.manifest import load_manifest
from cacheproxy.probes.encoder import EncoderProbe
from cacheproxy.probes.probe import Probe
from cacheproxy.probes.static import StaticProbe
from cacheproxy.settings.settings import Settings

SHALLOW = "shallow-1"


def probe_model(settings: Settings) -> str | None:
    """Return the name of the model that is the probe, if one is.

    Raises:
        ModelError: no model that embeds has that name.
    """
    probe = settings.semantic.probe
    if settings.semantic.mode == "off" or probe in {"shallow", "static"}:
        return None
    manifest = load_manifest(probe)
    if manifest.kind != "embeddings":
        raise ModelError(f"semantic.probe: {probe} is a reranker, and embeds nothing")
    return manifest.name


def make_probe(settings: Settings, model: InstalledModel) -> Probe:
    """Return the probe for a model.

    Raises:
        ModelError: another model is the probe, and is not installed.
    """
    if settings.semantic.mode == "off" or settings.semantic.probe == "static":
        return StaticProbe(model.static_probe)
    other = probe_model(settings)
    if other is None:
        return EncoderProbe(SHALLOW, OnnxEncoder(model.shallow_probe).encode)
    probe = load_installed(other, settings.home)
    return EncoderProbe(
        f"model-1:{probe.fingerprint}",
        OnnxEncoder(probe.graph).encode,
        partial(
            _translate,
            _tokenizer_of(model),
            _tokenizer_of(probe),
            probe.tokenizer_json == model.tokenizer_json,
        ),
    )


def _tokenizer_of(model: InstalledModel) -> Tokenizer:
    return Tokenizer(model.tokenizer_json, model.max_tokens)


def _translate(
    model: Tokenizer, probe: Tokenizer, is_same: bool, texts: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Return the probe's ids for texts given as the model's ids; none for a text that it would cut.

    The probe of a cut text would find every other text with the same beginning.
    """
    if is_same:
        accepted = [(ids, probe.accept(ids)) for ids in texts]
        return [[] if len(read) < len(ids) else read for ids, read in accepted]
    translated = probe.encode(model.decode(texts))
    return [[] if probe.is_full(ids) else ids for ids in translated]
