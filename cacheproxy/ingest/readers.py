"""Reads rows from JSON Lines, CSV, Parquet and plain lines, one after the other.

Nothing but the current part of a file is in memory. A row that cannot be read is a row without a
text, so that the rows after it keep their numbers.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.rows import Row, RowId

Form = Literal["jsonl", "csv", "tsv", "parquet", "lines"]

STDIN = "-"

_FORMS: dict[str, Form] = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"},
    **{".parquet": "parquet", ".txt": "lines"},
}

_MOST_LINE_BYTES = 16 * 2**20
"""A longer line is no text; without a bound, a file without line ends would fill the memory."""

_PARQUET_ROWS = 1_024


@dataclass(slots=True)
class Position:
    """How far the files have been read, in bytes; `total` is None if that is unknown."""

    read: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row's text and its id stand; lines have neither name."""

    text: str = "text"
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _Cell:
    """A text and an id as they were found, before they are checked."""

    text: Any
    id: Any
    reason: str = ""


def form_of(name: str, form: Form | None) -> Form:
    """Return the form of a file: the given one, or the one that its name ends with.

    Raises:
        ConfigError: the name says nothing.
    """
    if form is not None:
        return form
    if name == STDIN:
        return "lines"
    known = _FORMS.get(Path(name).suffix.lower())
    if known is None:
        raise ConfigError(f"{name}: the name does not say what form the file has; use --format")
    return known


def read_rows(
    names: Sequence[str], columns: Columns, form: Form | None, position: Position
) -> Iterator[Row]:
    """Yield the rows of all files in order; `position` follows.

    Raises:
        ConfigError: a file cannot be read, has no such column, or needs a library.
    """
    forms = [form_of(name, form) for name in names]
    for name in names:
        if name != STDIN and not Path(name).is_file():
            raise ConfigError(f"{name}: there is no such file")
    sizes = [Path(name).stat().st_size for name in names if name != STDIN]
    position.total = sum(sizes) if len(sizes) == len(names) else None
    number = 0
    for name, of_file in zip(names, forms, strict=True):
        before = position.read
        try:
            for cell in _cells(name, of_file, columns, position):
                yield _row(number, name, cell)
                number += 1
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{name}: {error}") from None
        if name != STDIN:
            position.read = before + Path(name).stat().st_size


def _cells(name: str, form: Form, columns: Columns, position: Position) -> Iterator[_Cell]:
    if form == "parquet":
        yield from _parquet(name, columns, position)
        return
    stream: BinaryIO = sys.stdin.buffer if name == STDIN else open(name, "rb")  # noqa: SIM115
    try:
        if form == "lines":
            yield from _lines(stream, position)
        elif form == "jsonl":
            yield from _json_lines(stream, columns, position)
        else:
            yield from _csv(name, stream, columns, position, "\t" if form == "tsv" else ",")
    finally:
        if name != STDIN:
            stream.close()


def _row(number: int, file: str, cell: _Cell) -> Row:
    named: RowId = number
    if cell.id is not None:
        named = cell.id if isinstance(cell.id, str) else orjson.dumps(cell.id).decode()
    if cell.reason:
        return Row(number, named, file, None, cell.reason)
    if not isinstance(cell.text, str):
        missing = cell.text is None
        return Row(number, named, file, None, "no text" if missing else "the text is not a string")
    try:
        cell.text.encode()
    except UnicodeEncodeError:
        return Row(number, named, file, None, "the text is not valid Unicode")
    return Row(number, named, file, cell.text)


def _raw_lines(stream: BinaryIO, position: Position) -> Iterator[bytes | None]:
    """Yield lines that are not blank, without their ends; None for one that is too long."""
    while line := stream.readline(_MOST_LINE_BYTES):
        position.read += len(line)
        is_whole = line.endswith(b"\n") or len(line) < _MOST_LINE_BYTES
        while not is_whole:
            rest = stream.readline(_MOST_LINE_BYTES)
            position.read += len(rest)
            is_whole = rest.endswith(b"\n") or len(rest) < _MOST_LINE_BYTES
            line = b""
        if not line:
            yield None
        elif line.strip():
            yield line.rstrip(b"\r\n")


def _lines(stream: BinaryIO, position: Position) -> Iterator[_Cell]:
    for line in _raw_lines(stream, position):
        if line is None:
            yield _Cell(None, None, "the line is too long")
            continue
        try:
            yield _Cell(line.decode(), None)
        except UnicodeDecodeError:
            yield _Cell(None, None, "the line is not UTF-8")


def _json_lines(stream: BinaryIO, columns: Columns, position: Position) -> Iterator[_Cell]:
    for line in _raw_lines(stream, position):
        if line is None:
            yield _Cell(None, None, "the line is too long")
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield _Cell(None, None, f"not JSON: {error}")
            continue
        if not isinstance(found, dict):
            yield _Cell(None, None, "not a JSON object")
            continue
        text, named = found.get(columns.text), found.get(columns.id) if columns.id else None
        reason = "" if text is not None else f"no field {columns.text}"
        if columns.id and named is None:
            reason = f"no field {columns.id}"
        yield _Cell(text, named, reason)


def _csv(
    name: str, stream: BinaryIO, columns: Columns, position: Position, delimiter: str
) -> Iterator[_Cell]:
    csv.field_size_limit(_MOST_LINE_BYTES)
    reader = csv.reader(_decoded(stream, position), delimiter=delimiter)
    head = next(reader, [])
    head = [head[0].removeprefix("\ufeff"), *head[1:]] if head else head
    where = _place(name, columns.text, head)
    where_id = None if columns.id is None else _place(name, columns.id, head)
    for fields in reader:
        if not fields:
            continue
        if len(fields) != len(head):
            yield _Cell(None, None, f"{len(fields)} fields, and the head has {len(head)}")
            continue
        yield _Cell(fields[where], None if where_id is None else fields[where_id])


def _decoded(stream: BinaryIO, position: Position) -> Iterator[str]:
    # "surrogateescape": bytes that are not UTF-8 spoil their row, not the file.
    for line in stream:
        position.read += len(line)
        yield line.decode("utf-8", "surrogateescape")


def _place(name: str, column: str, head: Sequence[str]) -> int:
    if column not in head:
        raise ConfigError(f"{name}: there is no column {column}; there are: {', '.join(head)}")
    return list(head).index(column)


def _parquet(name: str, columns: Columns, position: Position) -> Iterator[_Cell]:
    parquet = pyarrow_parquet()
    if name == STDIN:
        raise ConfigError("Parquet cannot be read from standard input: its index is at the end")
    try:
        file = parquet.ParquetFile(name)
    except ValueError as error:  # pyarrow's own errors are ValueErrors
        raise ConfigError(f"{name}: {error}") from None
    with file:
        head = file.schema_arrow.names
        for column in (columns.text, columns.id):
            if column is not None:
                _place(name, column, head)
        wanted = list(dict.fromkeys(filter(None, (columns.text, columns.id))))
        size, rows, before = Path(name).stat().st_size, max(1, file.metadata.num_rows), 0
        start = position.read
        for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
            texts = batch.column(columns.text).to_pylist()
            ids = batch.column(columns.id).to_pylist() if columns.id else [None] * len(texts)
            for text, named in zip(texts, ids, strict=True):
                before += 1
                position.read = start + size * before // rows
                reason = f"no value in {columns.id}" if columns.id and named is None else ""
                yield _Cell(text, named, reason)


def pyarrow_parquet() -> Any:
    """Return pyarrow's module for Parquet; raises ConfigError if it is not installed."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'cacheproxy[parquet]'") from None
    return parquet
