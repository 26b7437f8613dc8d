"""Embeds files into one file of vectors; work that was interrupted is taken up again."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.journal import Journal, RowChecksum, Work
from cacheproxy.ingest.outputs import check_output, write_output
from cacheproxy.ingest.readers import Columns, Form, Position, read_rows
from cacheproxy.ingest.rows import Embedded, Row
from cacheproxy.ingest.stream import Embedder, Limits, embedded

JOURNAL_SUFFIX = ".journal"


@dataclass(slots=True)
class Progress:
    """How far an ingestion has come; it is changed in place.

    Attributes:
        rows: done, in this run and before.
        taken_up: of those, done before this run.
        refused: of all, those without a vector.
        position: in the input.
    """

    position: Position
    rows: int = 0
    taken_up: int = 0
    refused: int = 0


Report = Callable[[Progress], None]


async def ingest(
    files: Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    embedder: Embedder,
    *,
    columns: Columns | None = None,
    form: Form | None = None,
    role: str | None = None,
    limits: Limits | None = None,
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Progress:
    """Embed the rows of files into a file, `.npy`, `.parquet` or `.jsonl`.

    Rows that cannot be embedded go to `OUTPUT.refused.jsonl` and stop nothing. Until the output is
    complete, what is done is in `OUTPUT.journal`; the same call takes it up again.

    Args:
        files: paths, or "-" for standard input.
        output: its name says the form.
        embedder: `LocalEmbedder` or `RemoteEmbedder`, not yet entered.
        columns: where text and id stand.
        form: of all files; default: as their names say.
        role: what the embedder was told that the texts are.
        limits: what is under way at a time, hence what a kill may cost.
        overwrite: replace an output that exists.
        report: called now and then.

    Raises:
        ConfigError: files, columns or output cannot be used, or the input is not the one with which
            the work began.
        CacheproxyError: the embedder failed for good; what is done is kept.
    """
    path, columns = Path(output), columns or Columns()
    check_output(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; --overwrite replaces it")
    progress = Progress(Position())
    names = [str(file) for file in files]
    rows = read_rows(names, columns, form, progress.position)
    async with embedder:
        work = Work(embedder.model, embedder.fingerprint, columns.text, columns.id, form, role)
        journal = Journal(path.with_name(path.name + JOURNAL_SUFFIX), work)
        try:
            progress.rows = progress.taken_up = journal.rows
            progress.refused = journal.refused
            checksum = await asyncio.to_thread(_skip, rows, journal)
            async for answers in embedded(rows, embedder, limits):
                for answer in answers:
                    checksum.add(answer.row)
                await asyncio.to_thread(journal.append, answers, checksum.value)
                progress.rows, progress.refused = journal.rows, journal.refused
                report(progress)
            await asyncio.to_thread(write_output, path, journal)
            journal.remove()
        finally:
            journal.close()
    return progress


async def embeddings(
    texts: Iterable[str] | AsyncIterable[str],
    embedder: Embedder,
    *,
    limits: Limits | None = None,
) -> AsyncIterator[Embedded]:
    """Yield each text's vector, or why it has none, in order and in a stream.

    Args:
        texts: any number; they are read as they are needed.
        embedder: `LocalEmbedder` or `RemoteEmbedder`, entered by the caller.
        limits: what is under way at a time.

    Raises:
        CacheproxyError: the embedder failed for good.
    """
    source = texts if isinstance(texts, Iterable) else _blocking(texts)
    rows = (_row(number, text) for number, text in enumerate(source))
    async for answers in embedded(rows, embedder, limits):
        for answer in answers:
            yield answer


def _row(number: int, text: str) -> Row:
    try:
        text.encode()
    except UnicodeEncodeError:
        return Row(number, number, "", None, "the text is not valid Unicode")
    return Row(number, number, "", text)


def _blocking(texts: AsyncIterable[str]) -> Iterator[str]:
    """Yield what comes asynchronously, in the thread that reads rows."""
    loop, source = asyncio.get_running_loop(), aiter(texts)

    def each() -> Iterator[str]:
        while True:
            future = asyncio.run_coroutine_threadsafe(_next(source), loop)
            if (text := future.result()) is None:
                return
            yield text

    return each()


async def _next(source: AsyncIterator[str]) -> str | None:
    return await anext(source, None)


def _skip(rows: Iterator[Row], journal: Journal) -> RowChecksum:
    """Read the rows that are done; raises ConfigError if they are not what they were."""
    checksum = RowChecksum()
    read = 0
    for row in islice(rows, journal.rows):
        checksum.add(row)
        read += 1
    if read < journal.rows or checksum.value != journal.checksum:
        raise ConfigError(
            f"{journal.path}: the input has changed since this work began; remove the journal to "
            "begin anew"
        )
    return checksum
