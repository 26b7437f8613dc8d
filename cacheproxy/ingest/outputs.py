"""Writes the vectors of a finished ingestion: NumPy, Parquet or JSON Lines, in a stream.

The bytes depend on the rows and vectors alone, not on how the work was divided or interrupted. Each
file is written under another name and renamed once it is on the disk.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.journal import Done, Journal, sync_folder
from cacheproxy.ingest.readers import pyarrow_parquet
from cacheproxy.ingest.rows import RowId, Vector

REFUSED_SUFFIX = ".refused.jsonl"

_ROW_GROUP = 10_000


def check_output(path: Path) -> None:
    """Check that an output can be written, before any work.

    Raises:
        ConfigError: its name says no form that is known, a library or its folder is missing.
    """
    if path.suffix not in _WRITERS:
        raise ConfigError(f"{path}: the name must end with {', '.join(_WRITERS)}")
    if path.suffix == ".parquet":
        pyarrow_parquet()
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")


def write_output(path: Path, journal: Journal) -> None:
    """Write the output, and the side file of refused rows if there are any.

    Raises:
        ConfigError: they cannot be written.
    """
    aside = path.with_name(path.name + REFUSED_SUFFIX)
    try:
        if journal.refused:
            with replaced(aside) as file:
                for line in _refused_lines(journal.done()):
                    file.write(line)
        else:
            aside.unlink(missing_ok=True)
        with replaced(path) as file:
            _WRITERS[path.suffix](file, journal)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None


def json_line(named: RowId, vector: Vector) -> bytes:
    """Return a row of the JSON Lines form; its numbers read back to the same float32."""
    row = {"id": named, "embedding": vector}
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def refusal_line(number: int, named: RowId, file: str, reason: str) -> bytes:
    """Return a row of the side file."""
    row = {"row": number, "id": named, "file": file, "reason": reason}
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


@contextmanager
def replaced(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file that takes a path's place once it is complete and on the disk."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.absolute().parent)
    finally:
        part.unlink(missing_ok=True)


def _refused_lines(done: Iterator[Done]) -> Iterator[bytes]:
    number = 0
    for part in done:
        for position, (file, reason) in sorted(part.refused.items()):
            yield refusal_line(number + position, part.ids[position], file, reason)
        number += len(part.ids)


def _vectors(journal: Journal) -> Iterator[tuple[RowId, Vector]]:
    for part in journal.done():
        for named, vector, *_ in part.answers():
            if vector is not None:
                yield named, vector


def _write_json_lines(file: BinaryIO, journal: Journal) -> None:
    for named, vector in _vectors(journal):
        file.write(json_line(named, vector))


def _write_numpy(file: BinaryIO, journal: Journal) -> None:
    """Write float32 [rows, dimensions]; a row without a vector is NaN, so that places agree."""
    shape = journal.rows, journal.dimensions
    head = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    nothing = np.full(journal.dimensions, np.nan, "<f4").tobytes()
    for part in journal.done():
        rows = (nothing if vector is None else vector.tobytes() for _, vector, *_ in part.answers())
        file.write(b"".join(rows))


def _write_parquet(file: BinaryIO, journal: Journal) -> None:
    """Write columns `id` and `embedding`, a list of float32 of one length."""
    import pyarrow as pa

    rows = _vectors(journal)
    first = next(rows, None)
    ids = pa.string() if first is not None and isinstance(first[0], str) else pa.int64()
    vectors = pa.list_(pa.float32(), max(1, journal.dimensions))
    schema = pa.schema([("id", ids), ("embedding", vectors)])
    with pyarrow_parquet().ParquetWriter(file, schema, compression="zstd") as writer:
        rows = rows if first is None else chain([first], rows)
        while group := list(islice(rows, _ROW_GROUP)):
            named = pa.array([one for one, _ in group], ids)
            flat = pa.array(np.concatenate([vector for _, vector in group]), pa.float32())
            listed = pa.FixedSizeListArray.from_arrays(flat, journal.dimensions)
            writer.write_table(pa.table([named, listed], schema), row_group_size=_ROW_GROUP)


_WRITERS: dict[str, Callable[[BinaryIO, Journal], None]] = {
    ".npy": _write_numpy,
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
}
