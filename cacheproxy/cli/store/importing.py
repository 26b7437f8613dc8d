"""`cacheproxy import`: the entries and the evidence of a file, into a store."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.failures import EXIT_REFUSED_ROWS, EXIT_USAGE, end, reported_failures
from cacheproxy.cli.flags import OPERATOR_SETTINGS, load, settings_flags
from cacheproxy.errors import ConfigError
from cacheproxy.settings.settings import Settings


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@settings_flags(*OPERATOR_SETTINGS)
def import_(file: Path, config: Path | None, **flags: Any) -> None:
    """Write what `cacheproxy export` wrote into a store, while servers may use the store.

    The whole FILE is checked first. Entries of models that are not served with these settings are
    refused and counted; the exit code is then 65.
    """
    settings = load(config, flags)
    if settings.is_in_memory:
        end(EXIT_USAGE, ConfigError("store: nothing can be imported into a store in memory"))
    with reported_failures():
        refused = _import(settings, file)
    if refused:
        sys.exit(EXIT_REFUSED_ROWS)


def _import(settings: Settings, file: Path) -> int:
    """Return how many records were refused."""
    from cacheproxy.admin.client import on_store
    from cacheproxy.ingest import Progress
    from cacheproxy.ingest.progress import Display
    from cacheproxy.ingest.readers import Position
    from cacheproxy.modelkit.install import load_all
    from cacheproxy.moving.file import MoveReader
    from cacheproxy.moving.importing import Imported, import_file
    from cacheproxy.server.fingerprints import served
    from cacheproxy.stores.protocol import Store

    with MoveReader(file) as reader:
        progress = Progress(Position(total=reader.size))
        displays = {step: Display(step, of="entries") for step in ("check", "import")}

        def report(step: str, done: Imported) -> None:
            progress.rows, progress.position.read = done.seen, reader.read
            progress.refused = done.refused
            displays[step](progress)

        decrypt = None
        if settings.encryption.keys is not None:
            from cacheproxy.settings.secrecy import decoded
            from cacheproxy.stores.encrypted import RecordCipher

            decrypt = RecordCipher(decoded(settings.encryption.keys)).decrypt
        places = served(settings, load_all(settings.model, settings.home, settings.device))

        async def work(store: Store) -> Imported:
            return await import_file(
                store, reader, places, decrypt=decrypt, report=report, now=time.time
            )

        done = on_store(settings, work, may_create=True, is_indexing=False)
        report("import", done)
        displays["import"].end(progress)
    for line in (
        f"imported: {done.entries} entries, evidence of {done.evidence} namespaces",
        f"already there: {done.present} entries, evidence of {done.evidence_present} namespaces",
        f"left out: {done.expired} expired, {done.purged} purged",
        f"refused: {done.other_model} entries of models that are not served here, "
        f"{done.undecryptable} that do not decrypt, evidence of {done.evidence_other} namespaces",
    ):
        click.echo(line)
    return done.refused
