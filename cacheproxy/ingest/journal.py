"""The journal of an ingestion: what is done, beside the output, so that nothing is done twice.

    frames: magic "CPJ1" 4 | length u32 | crc32 u32 of the body | body

The body of the first frame says what the work is; each further one holds rows with their vectors,
in order. A frame is on the disk (fsync) before the next rows are started, so that a process may be
killed at any moment: the last frame may be torn, and is then cut off. The journal is read by the
program that writes the output, which therefore is complete whenever it exists.
"""

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.rows import Embedded, Row, RowId, Vector

_FRAME = struct.Struct("<4sII")
_MAGIC = b"CPJ1"

T = TypeVar("T")


class Work(msgspec.Struct, frozen=True):
    """What an ingestion does; a journal of another one is not continued.

    Attributes:
        model: its name.
        fingerprint: of its vectors; empty if unknown.
        text, id: the columns.
        form: of all files, if one was named.
        role: what the texts are.
    """

    model: str
    fingerprint: str
    text: str
    id: str | None
    form: str | None
    role: str | None


class Done(msgspec.Struct):
    """Some rows, done.

    Attributes:
        ids: of all of them, in order.
        refused: position in `ids` to file and reason, of those without a vector.
        dimensions: of the vectors.
        vectors: float32 little-endian [rows with a vector, dimensions], as bytes.
        checksum: CRC-32 of all rows of the input up to the last of these.
    """

    ids: list[RowId]
    refused: dict[int, tuple[str, str]]
    dimensions: int
    vectors: bytes
    checksum: int

    def answers(self) -> Iterator[tuple[RowId, Vector | None, str, str]]:
        """Yield each row's id, vector, file and reason; the last two of refused rows only."""
        rows: NDArray[np.float32] = np.frombuffer(self.vectors, "<f4")
        each = iter(rows.reshape(-1, self.dimensions) if self.dimensions else rows)
        for position, named in enumerate(self.ids):
            if position in self.refused:
                yield named, None, *self.refused[position]
            else:
                yield named, next(each), "", ""


_WORK = msgspec.msgpack.Decoder(Work)
_DONE = msgspec.msgpack.Decoder(Done)


class RowChecksum:
    """A checksum over the rows of the input, so that a changed input is noticed."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, row: Row) -> None:
        """Take the next row."""
        said = msgspec.msgpack.encode((row.id, row.text if row.text is not None else row.reason))
        self.value = zlib.crc32(said, self.value)


class Journal:
    """The journal of one output, held by one process.

    Attributes:
        rows: how many are done.
        refused: how many of those have no vector.
        checksum: of the input up to there.
        dimensions: of the vectors; 0 as long as there is none.
    """

    def __init__(self, path: Path, work: Work) -> None:
        """Open or begin a journal, and hold it.

        Raises:
            ConfigError: it cannot be written, another process holds it, or it is of other work.
        """
        self.path = path
        self.rows = self.refused = self.checksum = self.dimensions = 0
        self._work = work
        try:
            self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        try:
            self._hold()
            self._take_up()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Release it."""
        self._file.close()

    def remove(self) -> None:
        """Remove it: the output is complete."""
        self.path.unlink(missing_ok=True)
        self.close()

    def append(self, answers: list[Embedded], checksum: int) -> None:
        """Write rows, and return when they are on the disk; it blocks.

        Raises:
            ConfigError: they cannot be written, as on a full disk.
        """
        vectors = [one.vector for one in answers if one.vector is not None]
        dimensions = len(vectors[0]) if vectors else 0
        if dimensions and self.dimensions and dimensions != self.dimensions:
            raise ConfigError(f"vectors of {dimensions} dimensions follow {self.dimensions}")
        done = Done(
            ids=[one.row.id for one in answers],
            refused={
                i: (one.row.file, one.reason) for i, one in enumerate(answers) if one.vector is None
            },
            dimensions=dimensions,
            vectors=b"".join(vector.astype("<f4").tobytes() for vector in vectors),
            checksum=checksum,
        )
        try:
            self._write(msgspec.msgpack.encode(done))
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}") from None
        self._count(done)

    def done(self) -> Iterator[Done]:
        """Yield all rows that are done, in parts."""
        frames = _frames(self.path)
        next(frames, None)
        for body, _ in frames:
            yield _DONE.decode(body)

    def _hold(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise ConfigError(f"{self.path}: another process works on this output") from None
            raise

    def _take_up(self) -> None:
        end = 0
        frames = _frames(self.path)
        first = next(frames, None)
        if first is not None:
            body, end = first
            if _decoded(_WORK, body) != self._work:
                raise ConfigError(
                    f"{self.path}: a journal of another model, or of other columns; finish that "
                    "work with its own options, or remove the journal"
                )
        for body, after in frames:
            self._count(_DONE.decode(body))
            end = after
        self._file.truncate(end)
        if first is None:
            self._write(msgspec.msgpack.encode(self._work))
            sync_folder(self.path.parent)

    def _count(self, done: Done) -> None:
        self.rows += len(done.ids)
        self.refused += len(done.refused)
        self.checksum = done.checksum
        self.dimensions = self.dimensions or done.dimensions

    def _write(self, body: bytes) -> None:
        self._file.write(_FRAME.pack(_MAGIC, len(body), zlib.crc32(body)) + body)
        self._file.flush()
        os.fsync(self._file.fileno())


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _frames(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the body of each whole frame, and where it ends; stop at the first that is not."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = 0
        while True:
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                return
            magic, length, checksum = _FRAME.unpack(head)
            if magic != _MAGIC or length > size - end - _FRAME.size:
                return
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != checksum:
                return
            end += _FRAME.size + length
            yield body, end


def _decoded(decoder: "msgspec.msgpack.Decoder[T]", body: bytes) -> T | None:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError:
        return None
