"""The file in which entries travel: checked record by record, and as a whole.

    magic "CPMOVE1\n" 8 | records: length u32 | crc32 u32 | body

A body is MessagePack. The checksum of a record goes on from that of the one before, so that a
record that is missing, doubled or in another place is noticed where it stands. The first record is
a `Head`, the last one an `End` with the SHA-256 of all bytes before it. Checksums tell accidents,
not forgery: whoever may write the file may write checksums, too.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from cacheproxy.errors import ConfigError

_MAGIC = b"CPMOVE1\n"
_FRAME = struct.Struct("<II")


class Head(msgspec.Struct, frozen=True, array_like=True, tag="head"):
    """What the file is.

    Attributes:
        version: of cacheproxy.
        made_at: Unix time at which the export began, seconds.
        is_encrypted: whether records are encrypted by the keys of `encryption.keys`.
    """

    version: str
    made_at: float
    is_encrypted: bool


class MovedEntry(msgspec.Struct, frozen=True, array_like=True, tag="entry"):
    """An entry; see `stores.protocol.Entry`.

    Attributes:
        model_id: of its partition, 16 hex characters.
        context: hashed, or empty.
        tags: hashed.
        probe: float32 little-endian [d], as bytes; empty if it has none.
    """

    key: bytes
    namespace_id: str
    model_id: str
    context: str
    record: bytes
    expires_at: float
    tags: list[str]
    probe: bytes
    generation: int


class MovedEvidence(msgspec.Struct, frozen=True, array_like=True, tag="evidence"):
    """The evidence of one namespace, as its store keeps it."""

    fingerprint: str
    kind: str
    namespace_id: str
    state: bytes


class MovedPurge(msgspec.Struct, frozen=True, array_like=True, tag="purge"):
    """A purge during the export: entries that it names are in the file and must not be imported."""

    generation: int
    namespace: str
    tag: str | None
    key: bytes | None


class End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    """What the file should have held."""

    entries: int
    evidence: int
    sha256: bytes


Part = Head | MovedEntry | MovedEvidence | MovedPurge | End

_DECODER: "msgspec.msgpack.Decoder[Part]" = msgspec.msgpack.Decoder(Part)
_ENCODER = msgspec.msgpack.Encoder()


class MoveWriter:
    """Writes a file, from `Head` to `End`.

    Attributes:
        entries: how many it has written.
    """

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self.entries = self._evidence = 0
        self._file = file
        self._whole = hashlib.sha256()
        self._checksum = 0
        self._put(_MAGIC)
        self._write(head)

    def write(self, part: MovedEntry | MovedEvidence | MovedPurge) -> None:
        """Write a record; raises OSError."""
        self._write(part)
        self.entries += isinstance(part, MovedEntry)
        self._evidence += isinstance(part, MovedEvidence)

    def end(self) -> None:
        """Write the last record; raises OSError."""
        self._write(End(self.entries, self._evidence, self._whole.digest()))

    def _write(self, part: Part) -> None:
        body = _ENCODER.encode(part)
        self._checksum = zlib.crc32(body, self._checksum)
        self._put(_FRAME.pack(len(body), self._checksum) + body)

    def _put(self, data: bytes) -> None:
        self._whole.update(data)
        self._file.write(data)


class MoveReader:
    """Reads a file, in a stream.

    Attributes:
        size: of the file, bytes.
        read: how far it was read, bytes.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            ConfigError: it cannot be read, or is no such file.
        """
        self._path = path
        self.read = 0
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
            magic = self._file.read(len(_MAGIC))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        if magic != _MAGIC:
            self._file.close()
            raise ConfigError(f"{path} was not made by cacheproxy export, or by another version")

    def __enter__(self) -> "MoveReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def parts(self) -> Iterator[Head | MovedEntry | MovedEvidence | MovedPurge]:
        """Yield the records from the first to the last but `End`, each of them checked.

        Raises:
            ConfigError: the file was cut or altered; the message has the number of the record.
        """
        self._file.seek(len(_MAGIC))
        self.read = len(_MAGIC)
        whole = hashlib.sha256(_MAGIC)
        checksum = number = entries = evidence = 0
        while True:
            number += 1
            frame = self._file.read(_FRAME.size)
            length, stated = _FRAME.unpack(frame) if len(frame) == _FRAME.size else (0, 0)
            if not length or length > self.size - self.read - _FRAME.size:
                raise self._damaged(number, "cut off" if not length else "damaged or cut off")
            body = self._file.read(length)
            checksum = zlib.crc32(body, checksum)
            if checksum != stated:
                raise self._damaged(number, "damaged")
            try:
                part = _DECODER.decode(body)
            except msgspec.MsgspecError:
                raise self._damaged(number, "of a form that is not known") from None
            if isinstance(part, Head) != (number == 1):
                raise self._damaged(number, "in the wrong place")
            if isinstance(part, End):
                ours = End(entries, evidence, whole.digest())
                if part != ours or self._file.read(1):
                    raise self._damaged(number, "not the end that the file should have")
                return
            whole.update(frame + body)
            self.read += len(frame) + length
            entries += isinstance(part, MovedEntry)
            evidence += isinstance(part, MovedEvidence)
            yield part

    def _damaged(self, number: int, what: str) -> ConfigError:
        return ConfigError(f"{self._path}: record {number} is {what} (byte {self.read:,})")
