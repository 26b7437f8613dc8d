"""The installed models that a command needs, built first where they are missing or damaged."""

import subprocess
import sys

import click

from cacheproxy.errors import ModelCorrupt, ModelError, ModelMissing
from cacheproxy.modelkit.install import InstalledModel, load_installed
from cacheproxy.modelkit.manifest import load_manifests
from cacheproxy.settings.device import Device
from cacheproxy.settings.settings import Settings


def installed_model(settings: Settings) -> InstalledModel:
    """Return the first installed model that embeds, as below."""
    embedders = [one.name for one in load_manifests(settings.model) if one.kind == "embeddings"]
    return installed_models(settings.model_copy(update={"model": tuple(embedders[:1])}))[0]


def installed_models(settings: Settings) -> list[InstalledModel]:
    """Return the installed models, building them, or their probe, where missing or damaged.

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: a model is unknown, is named twice, or cannot be built.
    """
    manifests = load_manifests(settings.model)
    if settings.device != "cpu":
        # Imported late, and told before anything is built in vain.
        from cacheproxy.inference.session import require_device

        require_device(settings.device)
    from cacheproxy.modelkit.probing import probe_model

    if (probe := probe_model(settings)) is not None:
        _load_or_build(probe, settings, "cpu")
    return [_load_or_build(manifest.name, settings, settings.device) for manifest in manifests]


def _load_or_build(name: str, settings: Settings, device: Device) -> InstalledModel:
    try:
        return load_installed(name, settings.home, device)
    except ModelMissing:
        click.echo(f"cacheproxy: {name} is not installed yet; building it", err=True)
    except ModelCorrupt as error:
        click.echo(f"cacheproxy: {error}; building it again", err=True)
    # In a process of its own, so that the server never holds the memory that building takes.
    command = [sys.executable, "-m", "cacheproxy", "model", "build", name]
    command += ["--home", str(settings.home), "--device", device]
    built = subprocess.run(command, check=False)  # noqa: S603
    if built.returncode:
        raise ModelError(f"{name} could not be built; nothing is served")
    return load_installed(name, settings.home, device)
