"""`cacheproxy warm`: fills a server's cache before traffic comes."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.cli.corpora import corpus_flags, embedder_of, limits_of
from cacheproxy.cli.failures import EXIT_REFUSED_ROWS, EXIT_USAGE, end, reported_failures
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.errors import ConfigError
from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, Namespace
from cacheproxy.settings.settings import Settings

if TYPE_CHECKING:
    from cacheproxy.ingest.readers import Position
    from cacheproxy.ingest.rows import Row


@click.command()
@click.argument("files", nargs=-1)
@click.option(
    "--from",
    "recording",
    metavar="FILE",
    help="in place of files: the record.path of a server with record.texts",
)
@click.option("--tenant", default=DEFAULT_TENANT, help="with --from: whose requests [default]")
@click.option(
    "--most",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="with --from: how many of the texts that were asked for most",
)
@corpus_flags
@settings_flags("model")
def warm(
    files: tuple[str, ...],
    recording: str | None,
    tenant: str,
    most: int,
    config: Path | None,
    **flags: Any,
) -> None:
    """Ask a server for the vectors of the texts of each FILE, so that it has them in its cache.

    What it has already is a hit and costs next to nothing: an interrupted command is simply
    repeated. With --from, the texts are those that another server, or the same one with its former
    model, was asked for most in the namespace.
    """
    settings = load(config, flags)
    if flags["url"] is None:
        end(EXIT_USAGE, ConfigError("--url: which server is to be warmed up?"))
    if bool(files) == (recording is not None):
        end(EXIT_USAGE, ConfigError("what is to be asked for? Name files, or --from a recording"))
    if recording is not None and "://" in recording:
        reason = "a store has hashes and no texts; name the file that requests are recorded to"
        end(EXIT_USAGE, ConfigError(f"--from: {reason}"))
    namespace = Namespace(tenant, flags["namespace"] or DEFAULT_NAMESPACE)
    with reported_failures():

        def rows(position: "Position") -> "Iterator[Row]":
            if recording is not None:
                return iter(_recorded(Path(recording), namespace, most))
            from cacheproxy.ingest import Columns
            from cacheproxy.ingest.readers import read_rows

            columns = Columns(flags["field"], flags["id"])
            return read_rows(files, columns, flags["format"], position)

        refused = asyncio.run(_warm(settings, rows, flags))
    if refused:
        sys.exit(EXIT_REFUSED_ROWS)


def _recorded(recording: Path, namespace: Namespace, most: int) -> "list[Row]":
    from cacheproxy.ingest.recorded import most_asked
    from cacheproxy.server.completions import DIALECTS

    completions = [dialect.name for dialect in DIALECTS]
    return most_asked(recording, namespace, most, other_routes=completions)


async def _warm(
    settings: Settings, rows: "Callable[[Position], Iterator[Row]]", flags: dict[str, Any]
) -> int:
    """Return how many rows were refused."""
    from cacheproxy.ingest import Progress
    from cacheproxy.ingest.outputs import refusal_line
    from cacheproxy.ingest.progress import Display
    from cacheproxy.ingest.readers import Position
    from cacheproxy.ingest.stream import embedded

    progress, display = Progress(Position()), Display("warm")
    texts = rows(progress.position)
    async with embedder_of(settings, flags) as embedder:
        async for answers in embedded(texts, embedder, limits_of(flags)):
            for row, vector, reason in answers:
                progress.rows += 1
                if vector is None:
                    progress.refused += 1
                    line = refusal_line(row.number, row.id, row.file, reason)
                    sys.stderr.write(line.decode())
            display(progress)
    display.end(progress)
    return progress.refused
