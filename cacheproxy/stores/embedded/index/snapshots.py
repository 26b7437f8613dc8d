"""Snapshots of the vector graphs, so that a restart need not build them from the rows again.

A snapshot is a file of usearch beside the database, and a row in it that names the file, its
SHA-256 and the last row id that the graph has seen. The rows after that id are its log. The row
binds both to one history: a database that was restored from a backup, or replaced, names another
file, or none. A file without a row is a snapshot that was never completed, or a superseded one.

Loading and saving hold the GIL for as long as they take (usearch 2.26: 150 ms for 60,000 probes,
measured). So a graph is loaded before the store is open, and saved by another process
(`snapshotter`) or after the last call.
"""

import hashlib
import logging
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cacheproxy.stores.embedded.database import Connection, transaction
from cacheproxy.stores.embedded.index.codes import Codes
from cacheproxy.stores.embedded.index.nodes import GRAPH_KIND, Graph
from cacheproxy.stores.embedded.index.vectors import PartitionIndex

_log = logging.getLogger(__name__)

SMALLEST = 4096
"""Probes from which on a graph is worth a snapshot: it takes a second to build (measured)."""

_LOG_SHARE = 16
"""A snapshot is renewed once its log has a 16th as many rows as it has probes. So each row is
written to disk some 16 times with its graph, 8 kB in all; and after a kill -9 a 16th is indexed
again, in the background."""

_KIND = f"2 {GRAPH_KIND}"
"""What snapshots are made. Raise the first number if what nodes mean changes."""

_KINDS = {_KIND, f"1 {GRAPH_KIND}"}
"""Those that are read; others are ignored. In the first, no probes were turned."""

_LEFT_S = 3600.0
"""An unnamed file that is older was left by a process that was killed."""


class _UnusableError(Exception):
    """A snapshot cannot be used; the message ends the sentence "is ignored because it ..."."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of `snapshots`."""

    partition: bytes
    owner: str
    dimensions: int
    last_id: int
    nodes: int
    kind: str
    file: str
    sha256: bytes
    codes: bytes | None


def folder_of(path: Path) -> Path:
    """Return the folder of a database's snapshots."""
    return Path(f"{path}.graphs")


@contextmanager
def making(path: Path) -> Iterator[bool]:
    """Yield whether no other process makes snapshots of a database; none does until the end."""
    lock = FileLock(f"{path}.graphs.lock", timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_due(connection: Connection, index: PartitionIndex, log_rows: int | None = None) -> bool:
    """Return whether an index needs a snapshot, or another one.

    `log_rows` is how long its log may be; without, it depends on the size of the graph.
    """
    most = max(SMALLEST, index.probes // _LOG_SHARE) if log_rows is None else log_rows
    if not index.ready or index.probes < SMALLEST or index.indexed < most:
        return False
    (log,) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM entries WHERE partition = ?1 AND id > coalesce("
        " (SELECT last_id FROM snapshots WHERE partition = ?1), 0) LIMIT ?2)",
        (index.partition, most),
    ).fetchone()
    if log < most:
        index.indexed = log
    return bool(log >= most)


def load_all(connection: Connection, folder: Path, limit: int) -> list[tuple[str, PartitionIndex]]:
    """Return the owners and indexes of the newest snapshots, at most `limit`, the oldest first.

    A snapshot that cannot be used is logged and forgotten; its graph is built from the rows.
    """
    loaded = []
    for snapshot in reversed(_named(connection)[:limit]):
        index = load(connection, folder, snapshot)
        if index is not None:
            loaded.append((snapshot.owner, index))
    return loaded


def load_one(connection: Connection, folder: Path, partition: bytes) -> PartitionIndex | None:
    """Return a partition's index from its snapshot, or None."""
    found = [one for one in _named(connection) if one.partition == partition]
    return load(connection, folder, found[0]) if found else None


def load(connection: Connection, folder: Path, snapshot: Snapshot) -> PartitionIndex | None:
    """Return the index of a snapshot; None if it has no entries left, or cannot be used."""
    rows = connection.execute(
        "SELECT 1 FROM entries WHERE partition = ? LIMIT 1", (snapshot.partition,)
    )
    if rows.fetchone() is None:
        return None
    try:
        graph = _read(folder / snapshot.file, snapshot)
    except (_UnusableError, OSError) as error:
        renewed = [one for one in _named(connection) if one.partition == snapshot.partition]
        if renewed and renewed[0].file != snapshot.file:
            return load(connection, folder, renewed[0])
        reason = f"cannot be read ({error})" if isinstance(error, OSError) else error
        _log.warning(
            "the snapshot %s of a vector index is ignored because it %s; the index is rebuilt",
            snapshot.file,
            reason,
        )
        connection.execute("DELETE FROM snapshots WHERE file = ?", (snapshot.file,))
        return None
    index = PartitionIndex(snapshot.partition, snapshot.dimensions)
    index.restore(graph, Codes.read(snapshot.codes, snapshot.dimensions), snapshot.last_id)
    return index


def save(connection: Connection, folder: Path, index: PartitionIndex) -> None:
    """Write a snapshot and name it in the database; the one before is removed.

    Raises:
        sqlite3.Error, OSError, RuntimeError: it could not be written; the one before stays.
    """
    found = connection.execute(
        "SELECT owner FROM entries WHERE partition = ? LIMIT 1", (index.partition,)
    ).fetchone()
    graph = index.nodes
    if found is None or not isinstance(graph, Graph):
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{index.partition.hex()}-{os.urandom(8).hex()}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if graph.save(path) != path.stat().st_size:
            raise OSError(f"{path} was not written whole")
        digest = _digest(path)
        _sync(path)
        _sync(folder)
        # From here on the database names the new file, and no longer the one before.
        with transaction(connection):
            connection.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(index.partition, found[0], index.dimensions, index.last_id),
                    *(len(graph), _KIND, path.name, digest),
                    index.codes.saved,
                ),
            )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    index.indexed = 0
    _remove_unnamed(connection, folder, index.partition)


def forget_namespace(connection: Connection, folder: Path, namespace: bytes) -> None:
    """Remove a namespace's snapshots, as their probes say much of the texts."""
    rows = connection.execute(
        "DELETE FROM snapshots WHERE partition BETWEEN ? AND ? RETURNING file",
        (namespace + b"\0" * 8, namespace + b"\xff" * 8),
    ).fetchall()
    for (file,) in rows:
        (folder / file).unlink(missing_ok=True)


def _named(connection: Connection) -> list[Snapshot]:
    """Return the snapshots that the database names, the newest first."""
    rows = connection.execute(
        "SELECT partition, owner, dimensions, last_id, nodes, kind, file, sha256, codes"
        " FROM snapshots ORDER BY last_id DESC"
    ).fetchall()
    return [Snapshot(*row) for row in rows]


def _read(path: Path, snapshot: Snapshot) -> Graph:
    if snapshot.kind not in _KINDS:
        raise _UnusableError(f"is of the kind {snapshot.kind!r}, and this is {_KIND!r}")
    # usearch trusts the lengths that it reads, so that nothing is read before the sum is right.
    if _digest(path) != snapshot.sha256:
        raise _UnusableError("is damaged")
    graph = Graph(snapshot.dimensions)
    try:
        graph.load(path)
    except RuntimeError as error:
        raise _UnusableError(f"cannot be loaded ({error})") from error
    if len(graph) != snapshot.nodes:
        raise _UnusableError(f"has {len(graph)} nodes instead of {snapshot.nodes}")
    return graph


def _digest(path: Path) -> bytes:
    """Return a file's SHA-256; other threads run meanwhile."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return b""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.sha256(content).digest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unnamed(connection: Connection, folder: Path, partition: bytes) -> None:
    """Remove superseded files of a partition, and what other processes have left."""
    named = {snapshot.file for snapshot in _named(connection)}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removes it too
            is_old = time.time() - path.stat().st_mtime > _LEFT_S
            is_ours = path.name.startswith(partition.hex())
            if path.name not in named and (is_ours or is_old):
                path.unlink()
