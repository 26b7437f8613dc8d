"""The command line. Every setting is a flag of `serve`; mistakes end with exit code 2.

Exit codes: 0 done, 2 a mistaken command or setting; of sysexits.h, 69 (EX_UNAVAILABLE) the store or
the server did not do what was asked, 78 (EX_CONFIG) no usable model.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import click
import numpy as np
import orjson

import cacheproxy
from cacheproxy.administration import Target
from cacheproxy.api.callers import hash_key
from cacheproxy.config import ENV_PREFIX, load_settings, unknown_variables
from cacheproxy.device import Device
from cacheproxy.errors import (
    ApiError,
    CacheproxyError,
    ConfigError,
    ModelCorrupt,
    ModelError,
    ModelMissing,
    StoreError,
    WorkerDied,
)
from cacheproxy.figures import describe
from cacheproxy.keys import DEFAULT_TENANT, Namespace
from cacheproxy.listeners import ADMIN, PUBLIC, bind, reserve
from cacheproxy.logs import start_logging
from cacheproxy.modelkit.install import InstalledModel, build_model, load_installed, model_folder
from cacheproxy.modelkit.manifest import list_manifests, load_manifest
from cacheproxy.modelkit.progress import counting
from cacheproxy.settings import Settings, setting_fields

EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_NO_MODEL = 78

F = TypeVar("F", bound=Callable[..., Any])


def _settings_flags(*names: str) -> Callable[[F], F]:
    """Add a flag for every setting, or those of these names or sections, and --config."""

    def add(command: F) -> F:
        for path, field in reversed(list(setting_fields())):
            if names and path[0] not in names:
                continue
            flag = "--" + "-".join(path).replace("_", "-")
            shown = "" if field.default_factory or field.default is None else f" [{field.default}]"
            if field.annotation is bool:
                option = click.option(flag, is_flag=True, default=None, help=field.description)
            else:
                option = click.option(flag, metavar="VALUE", help=f"{field.description}{shown}")
            command = option(command)
        config = click.option(
            "--config",
            type=click.Path(path_type=Path),
            envvar=f"{ENV_PREFIX}CONFIG",
            help="settings file [./cacheproxy.toml if it exists]",
        )
        return config(command)

    return add


def _load(config: Path | None, flags: dict[str, Any]) -> Settings:
    for variable in unknown_variables(os.environ):
        click.echo(f"cacheproxy: {variable} names no setting and is ignored", err=True)
    nested: dict[str, Any] = {}
    for path, _ in setting_fields():
        value = flags.get("_".join(path))
        if value is not None:
            *sections, name = path
            place = nested.setdefault(sections[0], {}) if sections else nested
            place[name] = value
    try:
        return load_settings(nested, config)
    except ConfigError as error:
        _end(EXIT_USAGE, error)


def _end(code: int, error: Exception) -> NoReturn:
    for line in str(error).splitlines():
        click.echo(f"cacheproxy: {line}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(cacheproxy.__version__, package_name="cacheproxy")
def main() -> None:
    """A semantic caching proxy in front of inference."""


@main.command()
@_settings_flags()
def serve(config: Path | None, **flags: Any) -> None:
    """Serve OpenAI-compatible embeddings, from the cache wherever it can answer."""
    settings = _load(config, flags)
    start_logging(settings.log.level, settings.log.format, process_id=settings.workers > 1)
    try:
        if settings.workers > 1:
            _serve_by_workers(settings)
        else:
            _serve_by_itself(settings)
    except (ConfigError, StoreError) as error:
        _end(EXIT_USAGE, error)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)
    except WorkerDied as error:
        _end(EXIT_UNAVAILABLE, error)


def _serve_by_itself(settings: Settings) -> None:
    # Imported late: a mistaken setting is told without waiting for the runtime to load.
    from cacheproxy.app import App
    from cacheproxy.server import serve as serve_app

    listeners = _claim(settings, bind)
    serve_app(App(settings, _installed(settings)), listeners, settings)


def _serve_by_workers(settings: Settings) -> None:
    from cacheproxy.supervisor import supervise

    reserved = _claim(settings, reserve)
    _installed(settings)  # built once, not by each worker
    supervise(settings, reserved)


def _claim(
    settings: Settings, claim: Callable[[str, int], socket.socket]
) -> dict[str, socket.socket]:
    """Return a socket for every address that is to be listened on."""
    admin = settings.admin
    claimed = {PUBLIC: claim(settings.host, settings.port)}
    if admin.port is not None:
        claimed[ADMIN] = claim(admin.host, admin.port)
    return claimed


def _installed(settings: Settings) -> InstalledModel:
    """Return the installed model, building it, or its probe, where it is missing or damaged."""
    if settings.device != "cpu":
        # Imported late, and told before anything is built in vain.
        from cacheproxy.inference.session import require_device

        require_device(settings.device)
    from cacheproxy.modelkit.probing import probe_model

    if (probe := probe_model(settings)) is not None:
        _load_or_build(probe, settings, "cpu")
    return _load_or_build(load_manifest(settings.model).name, settings, settings.device)


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


@main.command()
@click.argument("texts", nargs=-1)
@_settings_flags()
def embed(texts: tuple[str, ...], config: Path | None, **flags: Any) -> None:
    """Print the vector of each TEXT, or of each line of standard input, as a line of JSON."""
    settings = _load(config, flags)
    from cacheproxy.inference.session import OnnxEncoder
    from cacheproxy.inference.tokenizer import Tokenizer

    try:
        installed = _installed(settings)
    except ConfigError as error:
        _end(EXIT_USAGE, error)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    encoder = OnnxEncoder(installed.graph, device=installed.device)
    for text in texts or (line.rstrip("\n") for line in sys.stdin):
        (ids,) = tokenizer.encode([text])
        (vector,) = encoder.encode(np.array([ids], np.int64))
        click.echo(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))


@main.command("eval")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--then", type=click.Path(path_type=Path), multiple=True, help="traffic shifts here")
@click.option(
    "--documents",
    type=click.Path(path_type=Path),
    multiple=True,
    help="show what a similarity means to a retriever of these",
)
@click.option("--requests", type=int, help="draw so many requests from the texts [replay as is]")
@click.option("--report", type=click.Path(path_type=Path), help="write a page with plots (.html)")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write the figures")
@click.option("--work", type=click.Path(path_type=Path), help="keep vectors here, to go on from")
@click.option("--seed", default=1, show_default=True, help="of all that is drawn")
@click.option(
    "--chat", "is_chat", is_flag=True, help="questions to a chat model, each group with one answer"
)
@_settings_flags()
def evaluate(
    files: tuple[Path, ...],
    then: tuple[Path, ...],
    documents: tuple[Path, ...],
    requests: int | None,
    report: Path | None,
    json_path: Path | None,
    work: Path | None,
    seed: int,
    is_chat: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Replay texts, a log or a list, to see what the semantic tier would do with them.

    FILES hold a JSON object with a text, or a plain text, a line. Objects may be labelled: `text`
    with its `cluster` or `label`, or pairs, `a` and `b`, with `label` 0 where the two
    are different.
    """
    settings = _load(config, flags)
    from cacheproxy.evaluation.command import Wanted, run

    try:
        text = run(
            Wanted(files, then, documents, requests, report, json_path, work, seed, is_chat),
            settings,
            _installed(settings),
        )
    except ConfigError as error:
        _end(EXIT_USAGE, error)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)
    click.echo(text)


@main.command("judge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pairs", default=200, show_default=True, help="of each kind")
@click.option("--seed", default=1, show_default=True, help="of what is drawn")
@_settings_flags()
def measure_judge(
    files: tuple[Path, ...], pairs: int, seed: int, config: Path | None, **flags: Any
) -> None:
    """Measure how many different answers the judge model tells apart.

    FILES hold pairs of texts, a JSON object a line: `a`, `b`, and `label` 0 where the two differ, 1
    where they say the same.
    """
    flags["chat_judge_sensitivity"] = flags["chat_judge_sensitivity"] or 1  # as it is to be found
    settings = _load(config, flags)
    from cacheproxy.evaluation.judging import measure_judge as measure
    from cacheproxy.evaluation.traffic import read_texts

    try:
        found = measure(read_texts(files), settings, pairs=pairs, seed=seed)
    except ConfigError as error:
        _end(EXIT_USAGE, error)
    except ApiError as error:
        _end(EXIT_UNAVAILABLE, error)
    click.echo(found.as_text())


@main.command()
@click.argument("tenant")
def key(tenant: str) -> None:
    """Make an API key for TENANT: the key itself, and the lines for cacheproxy.toml."""
    api_key = "cp-" + secrets.token_urlsafe(32)
    click.echo(f"key (shown once, give it to the caller): {api_key}", err=True)
    click.echo(f"[api_keys]\n{json.dumps(tenant)} = [{json.dumps(hash_key(api_key))}]")


_OPERATORS = ("home", "store", "model", "device", "api_keys", "admin")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@_settings_flags(*_OPERATORS, "semantic")
def stats(as_json: bool, config: Path | None, **flags: Any) -> None:
    """Print what the cache holds, and, where a server's admin listener answers, how it does."""
    settings = _load(config, flags)
    from cacheproxy.admin_client import fetch_stats

    with _failures_told():
        figures = fetch_stats(settings)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for line in describe(figures):
        click.echo(line)


@main.command()
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="whose namespace it is")
@click.option("--namespace", required=True, help="the namespace's name")
@click.option("--key", help="purge the entry with this key, in hex")
@click.option("--text", help="purge the entry of this text under the model that is served")
@click.option("--tag", help="purge the entries with this tag")
@click.option("--all", "everything", is_flag=True, help="purge the whole namespace")
@_settings_flags(*_OPERATORS)
def purge(
    tenant: str,
    namespace: str,
    key: str | None,
    text: str | None,
    tag: str | None,
    everything: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Remove entries, from every server on the store; ends when all are gone."""
    settings = _load(config, flags)
    from cacheproxy import admin_client

    target = Target(key=key, text=text, tag=tag, all=everything)
    with _failures_told(), counting("entries removed") as progress:
        removed = admin_client.purge(settings, Namespace(tenant, namespace), target, progress)
    click.echo(f"entries removed: {removed}")


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except (ConfigError, ApiError) as error:
        _end(EXIT_USAGE, error)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)
    except CacheproxyError as error:
        _end(EXIT_UNAVAILABLE, error)


@main.group()
def model() -> None:
    """Build and check the models that are served."""


_home = click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=lambda: Settings.model_fields["home"].get_default(call_default_factory=True),
    envvar=f"{ENV_PREFIX}HOME",
    help="where models live [the user's cache folder]",
)

_device = click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="cpu",
    show_default=True,
    help="what the model runs on",
)


@model.command("build")
@click.argument("name")
@_home
@_device
def model_build(name: str, home: Path, device: Device) -> None:
    """Fetch, verify, build, quantise, gate and install the model NAME."""
    try:
        build_model(name, home, device)
    except ConfigError as error:
        _end(EXIT_USAGE, error)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)


@model.command("verify")
@click.argument("name")
@_home
@_device
def model_verify(name: str, home: Path, device: Device) -> None:
    """Check that the installed model NAME is byte for byte what its build wrote."""
    try:
        installed = load_installed(load_manifest(name).name, home, device)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)
    click.echo(f"{installed.name}: intact, fingerprint {installed.fingerprint}")


@model.command("bench")
@click.argument("name")
@_home
def model_bench(name: str, home: Path) -> None:
    """Measure the installed model NAME on this machine, by threads and by size of groups."""
    from cacheproxy.modelkit.bench import measure_latency, measure_throughput

    cores = len(os.sched_getaffinity(0))
    try:
        installed = load_installed(load_manifest(name).name, home)
        latencies, throughputs = measure_latency(installed), measure_throughput(installed, cores)
    except ModelError as error:
        _end(EXIT_NO_MODEL, error)
    click.echo("one text on one core:")
    for tokens, seconds in latencies.items():
        click.echo(f"{tokens:8d} tokens {1000 * seconds:8.2f} ms")
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
@_home
def model_list(home: Path) -> None:
    """List the models that can be built, and say which are installed."""
    for manifest in list_manifests():
        devices = [
            device
            for device in get_args(Device)
            if model_folder(manifest.name, home, device).is_dir()
        ]
        state = f"installed for {', '.join(devices)}" if devices else "not installed"
        click.echo(f"{manifest.name}  {manifest.dimensions} dimensions  {state}")
