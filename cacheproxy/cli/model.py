"""`cacheproxy model`: builds, checks, measures and lists models."""

import os
from pathlib import Path
from typing import get_args

import click

from cacheproxy.cli.failures import reported_failures
from cacheproxy.cli.flags import device_flag, home_flag
from cacheproxy.modelkit.install import build_model, load_installed, model_folder
from cacheproxy.modelkit.manifest import list_manifests, load_manifest
from cacheproxy.settings.device import Device


@click.group()
def model() -> None:
    """Build and check the models that are served."""


@model.command("build")
@click.argument("name")
@home_flag
@device_flag
def model_build(name: str, home: Path, device: Device) -> None:
    """Fetch, verify, build, quantise, gate and install the model NAME."""
    with reported_failures():
        build_model(name, home, device)


@model.command("verify")
@click.argument("name")
@home_flag
@device_flag
def model_verify(name: str, home: Path, device: Device) -> None:
    """Check that the installed model NAME is byte for byte what its build wrote."""
    with reported_failures():
        installed = load_installed(load_manifest(name).name, home, device)
    click.echo(f"{installed.name}: intact, fingerprint {installed.fingerprint}")


@model.command("bench")
@click.argument("name")
@home_flag
def model_bench(name: str, home: Path) -> None:
    """Measure the installed model NAME on this machine, by threads and by size of groups."""
    from cacheproxy.modelkit.gate.bench import measure_latency, measure_throughput

    cores = len(os.sched_getaffinity(0))
    with reported_failures():
        installed = load_installed(load_manifest(name).name, home)
        latencies = measure_latency(installed, cores)
        throughputs = measure_throughput(installed, cores)
    click.echo("one text, milliseconds by cores:")
    click.echo("  tokens" + "".join(f"{count:9d}" for count in next(iter(latencies.values()))))
    for tokens, seconds in latencies.items():
        click.echo(f"{tokens:8d}" + "".join(f"{1000 * each:9.2f}" for each in seconds.values()))
    click.echo(f"\nall cores ({cores}), texts in the mix that ships with the package:")
    click.echo("  threads  cores each  tokens a group   texts/s  tokens/s")
    best = max(throughputs, key=lambda found: found.texts_per_s)
    for found in throughputs:
        click.echo(
            f"{found.threads:9d}{found.cores_a_group:12d}{found.group_tokens:16d}"
            f"{found.texts_per_s:10.0f}{found.tokens_per_s:10.0f}"
            + ("  fastest" if found is best else "")
        )
    click.echo("\nserve takes --batch-threads (one per core) and --batch-max-tokens (256)")


@model.command("list")
@home_flag
def model_list(home: Path) -> None:
    """List the models that can be built, and say which are installed."""
    for manifest in list_manifests():
        devices = [
            device
            for device in get_args(Device)
            if model_folder(manifest.name, home, device).is_dir()
        ]
        state = f"installed for {', '.join(devices)}" if devices else "not installed"
        is_reranker = manifest.kind == "rerank"
        what = "reranker" if is_reranker else f"{manifest.dimensions} dimensions"
        click.echo(f"{manifest.name}  {what}  {state}")
