"""`cacheproxy embed`: vectors of files of texts, by a server or in this process."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.corpora import corpus_flags, embedder_of, limits_of
from cacheproxy.cli.failures import EXIT_REFUSED_ROWS, reported_failures
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.settings.settings import Settings


@click.command()
@click.argument("files", nargs=-1)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="a .npy, .parquet or .jsonl file; default: JSON Lines on standard output",
)
@click.option("--overwrite", is_flag=True, help="replace an output that exists")
@corpus_flags
@settings_flags("home", "model", "device")
def embed(
    files: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Embed the texts of each FILE: JSON Lines, CSV, Parquet or lines; without one, or for "-",
    the lines of standard input.

    Work that was interrupted, even by kill -9, is taken up again by the same command. Texts that
    cannot be embedded go to OUTPUT.refused.jsonl with the reason; the exit code is then 65.
    """
    settings = load(config, flags)
    with reported_failures():
        refused = asyncio.run(_embed(settings, files or ("-",), output, overwrite, flags))
    if refused:
        sys.exit(EXIT_REFUSED_ROWS)


async def _embed(
    settings: Settings,
    files: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    flags: dict[str, Any],
) -> int:
    """Return how many rows were refused."""
    from cacheproxy.ingest import Columns, ingest
    from cacheproxy.ingest.outputs import json_line, refusal_line
    from cacheproxy.ingest.progress import Display
    from cacheproxy.ingest.readers import Position, read_rows
    from cacheproxy.ingest.stream import embedded

    columns, limits = Columns(flags["field"], flags["id"]), limits_of(flags)
    embedder = embedder_of(settings, flags)
    if output is not None:
        display = Display("embed")
        done = await ingest(
            files,
            output,
            embedder,
            columns=columns,
            form=flags["format"],
            role=flags["role"],
            limits=limits,
            overwrite=overwrite,
            report=display,
        )
        display.end(done)
        return done.refused
    refused = 0
    rows = read_rows(files, columns, flags["format"], Position())
    async with embedder:
        async for answers in embedded(rows, embedder, limits):
            for row, vector, reason in answers:
                if vector is not None:
                    sys.stdout.buffer.write(json_line(row.id, vector))
                else:
                    refused += 1
                    line = refusal_line(row.number, row.id, row.file, reason)
                    sys.stderr.write(line.decode())
            sys.stdout.buffer.flush()
    return refused
