"""`cacheproxy warm`: fills a server's cache before traffic comes."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.corpora import corpus_flags, embedder_of, limits_of
from cacheproxy.cli.failures import EXIT_REFUSED_ROWS, EXIT_USAGE, end, reported_failures
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.errors import ConfigError
from cacheproxy.settings.settings import Settings


@click.command()
@click.argument("files", nargs=-1, required=True)
@corpus_flags
@settings_flags("model")
def warm(files: tuple[str, ...], config: Path | None, **flags: Any) -> None:
    """Ask a server for the vectors of the texts of each FILE, so that it has them in its cache.

    What it has already is a hit and costs next to nothing: an interrupted command is simply
    repeated.
    """
    settings = load(config, flags)
    if flags["url"] is None:
        end(EXIT_USAGE, ConfigError("--url: which server is to be warmed up?"))
    with reported_failures():
        refused = asyncio.run(_warm(settings, files, flags))
    if refused:
        sys.exit(EXIT_REFUSED_ROWS)


async def _warm(settings: Settings, files: tuple[str, ...], flags: dict[str, Any]) -> int:
    """Return how many rows were refused."""
    from cacheproxy.ingest import Columns, Progress
    from cacheproxy.ingest.outputs import refusal_line
    from cacheproxy.ingest.progress import Display
    from cacheproxy.ingest.readers import Position, read_rows
    from cacheproxy.ingest.stream import embedded

    progress, display = Progress(Position()), Display("warm")
    columns = Columns(flags["field"], flags["id"])
    rows = read_rows(files, columns, flags["format"], progress.position)
    async with embedder_of(settings, flags) as embedder:
        async for answers in embedded(rows, embedder, limits_of(flags)):
            for row, vector, reason in answers:
                progress.rows += 1
                if vector is None:
                    progress.refused += 1
                    line = refusal_line(row.number, row.id, row.file, reason)
                    sys.stderr.write(line.decode())
            display(progress)
    display.end(progress)
    return progress.refused
