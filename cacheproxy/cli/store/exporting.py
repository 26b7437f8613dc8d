"""`cacheproxy export`: a store's entries and evidence, into a file."""

from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.failures import EXIT_REFUSED_ROWS, EXIT_USAGE, end, reported_failures
from cacheproxy.cli.flags import OPERATOR_SETTINGS, load, settings_flags
from cacheproxy.errors import ConfigError, ModelError
from cacheproxy.keys import DEFAULT_TENANT, Namespace
from cacheproxy.settings.settings import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="whose namespaces")
@click.option("--namespace", "names", multiple=True, help="a namespace's name [all of the store]")
@click.option("--overwrite", is_flag=True, help="replace a file that exists")
@click.option("--decrypt", is_flag=True, help="write records in clear although they are encrypted")
@settings_flags(*OPERATOR_SETTINGS)
def export(
    file: Path,
    tenant: str,
    names: tuple[str, ...],
    overwrite: bool,
    decrypt: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Write the entries and the evidence of a store into FILE, while servers may use the store."""
    settings = load(config, flags)
    if settings.is_in_memory:
        end(EXIT_USAGE, ConfigError("store: a store in memory cannot be exported"))
    if tenant != DEFAULT_TENANT and not names:
        end(EXIT_USAGE, ConfigError("--tenant needs --namespace"))
    if file.exists() and not overwrite:
        end(EXIT_USAGE, ConfigError(f"{file} exists; --overwrite replaces it"))
    ids = [Namespace(tenant, name).id for name in names] or None
    with reported_failures():
        unknown = _export(settings, file, ids, decrypt)
    if unknown:
        raise SystemExit(EXIT_REFUSED_ROWS)


def _export(settings: Settings, file: Path, ids: list[str] | None, decrypt: bool) -> int:
    """Return how many entries could not be read."""
    from cacheproxy.admin.client import on_store
    from cacheproxy.ingest import Progress
    from cacheproxy.ingest.progress import Display
    from cacheproxy.ingest.readers import Position
    from cacheproxy.moving.exporting import Exported, export
    from cacheproxy.stores.protocol import Store

    evidence = _evidence_of(settings)
    progress, display = Progress(Position()), Display("export", of="entries")

    def report(done: Exported) -> None:
        progress.rows = done.entries
        display(progress)

    async def work(store: Store) -> tuple[Exported, int]:
        encrypt = None
        if settings.encryption.keys is not None and not decrypt:
            from cacheproxy.settings.secrecy import decoded
            from cacheproxy.stores.encrypted import RecordCipher

            encrypt = RecordCipher(decoded(settings.encryption.keys)).encrypt
        done = await export(
            store, file, namespace_ids=ids, evidence=evidence, encrypt=encrypt, report=report
        )
        return done, store.stats().undecryptable

    done, undecryptable = on_store(settings, work, is_indexing=False)
    report(done)
    display.end(progress)
    unreadable = done.unknown + undecryptable
    click.echo(
        f"exported: {done.entries} entries of {len(done.namespaces)} namespaces, evidence of "
        f"{done.evidence}; unreadable: {unreadable}"
    )
    return unreadable


def _evidence_of(settings: Settings) -> list[tuple[str, str]]:
    from cacheproxy.modelkit.install import load_all
    from cacheproxy.server.fingerprints import served

    try:
        return served(settings, load_all(settings.model, settings.home, settings.device)).evidence
    except ModelError as error:
        click.echo(f"cacheproxy: without evidence, whose names need the model: {error}", err=True)
        return []
