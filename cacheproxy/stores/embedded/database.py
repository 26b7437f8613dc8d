"""The SQLite file behind the embedded store, opened whatever state it is in.

A cache must never stop the server that it speeds up. So a file that is corrupt, of another version
or of another program is renamed, kept, and replaced by an empty one.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_log = logging.getLogger(__name__)

_APPLICATION_ID = int.from_bytes(b"CPXY", "big")
_FORMAT = 4
"""Kept as `PRAGMA user_version`; raised whenever the schema below changes."""

_BUSY_S = 5.0
"""How long a write waits for another process's lock; a transaction takes some 20 ms."""

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of writing, never reused
    key BLOB NOT NULL UNIQUE,
    partition BLOB NOT NULL,
    owner TEXT NOT NULL,
    model BLOB NOT NULL,  -- of the partition, whose own column cannot be read back
    context BLOB,
    expires_at REAL NOT NULL,
    generation INTEGER NOT NULL,
    record BLOB NOT NULL,
    probe_hash INTEGER,
    probe BLOB
);
CREATE INDEX entries_by_expiry ON entries (expires_at);
CREATE INDEX entries_by_owner ON entries (owner);  -- and by id: the oldest of an owner first
CREATE INDEX entries_by_partition ON entries (partition);
CREATE INDEX entries_by_probe ON entries (partition, probe_hash, expires_at)
    WHERE probe_hash IS NOT NULL;
CREATE TABLE tags (tag BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (tag, key)) WITHOUT ROWID;
CREATE INDEX tags_by_key ON tags (key);
CREATE TABLE purges (
    generation INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of purging, never reused
    namespace_id TEXT NOT NULL,
    namespace BLOB NOT NULL,
    tag BLOB,
    key BLOB,
    made_at REAL NOT NULL,  -- or, of one that removes entries, when it last did
    is_running INTEGER NOT NULL
);
CREATE INDEX running_purges ON purges (namespace) WHERE is_running;
-- Without the entries that a running purge names and has not removed yet.
CREATE VIEW standing_entries AS SELECT * FROM entries WHERE NOT EXISTS (
    SELECT 1 FROM purges
    WHERE is_running
        AND purges.namespace = substr(entries.partition, 1, 16)
        AND purges.generation > entries.generation
        AND (purges.key IS NULL OR purges.key = entries.key)
        AND (purges.tag IS NULL OR EXISTS (
            SELECT 1 FROM tags WHERE tags.tag = purges.tag AND tags.key = entries.key
        ))
);
CREATE TABLE replacements (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    writer BLOB NOT NULL,
    keys BLOB NOT NULL,
    made_at REAL NOT NULL
);
CREATE TABLE states (name BLOB PRIMARY KEY, state BLOB NOT NULL, expires_at REAL NOT NULL);
-- What each owner has; size: bytes of its records and probes.
CREATE TABLE totals (
    owner TEXT PRIMARY KEY, entries INTEGER NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    INSERT INTO totals VALUES (NEW.owner, 1, length(NEW.record) + coalesce(length(NEW.probe), 0))
    ON CONFLICT DO UPDATE SET entries = entries + 1, size = size + excluded.size;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET
        entries = entries - 1, size = size - length(OLD.record) - coalesce(length(OLD.probe), 0)
    WHERE owner = OLD.owner;
    DELETE FROM tags WHERE key = OLD.key;
END;
"""

# Not part of the schema that `_FORMAT` numbers: a file of before there were snapshots stays usable.
_SNAPSHOTS = """
CREATE TABLE IF NOT EXISTS snapshots (
    partition BLOB PRIMARY KEY,
    owner TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    last_id INTEGER NOT NULL,  -- of the newest entry that is in it
    nodes INTEGER NOT NULL,
    kind TEXT NOT NULL,
    file TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    codes BLOB
)
"""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Connection(sqlite3.Connection):
    """A connection that knows which incarnation of the file it sees (`Database.incarnation`)."""

    incarnation = 0


class _UnusableError(Exception):
    """The file cannot be the store's; the message ends the sentence "set aside because it ..."."""


class Database:
    """One SQLite database, in a file (mode 0600: vectors invert to text) or in memory.

    Attributes:
        incarnation: rises whenever the database has been replaced by a new one; row ids that were
            read under another incarnation are meaningless.
    """

    def __init__(self, path: Path | None) -> None:
        self.incarnation = 0
        self.path = path
        self._lock = threading.Lock()
        self._suspect = False
        self._inode: tuple[int, int] | None = None

    def connect(self) -> Connection:
        """Return a new connection; create the database, and set aside an unusable file.

        Raises:
            sqlite3.Error, OSError: there can be no database at the path.
        """
        with self._lock:
            if self.path is None:
                connection = _open(":memory:")
                self.incarnation += 1
            else:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Of two processes that start on one corrupt file, the second must not set aside the
                # first one's new file: it checks again once it holds the lock.
                with FileLock(f"{self.path}.lock", timeout=2 * _BUSY_S, mode=0o600):
                    connection = self._open_or_replace(self.path)
                inode = _inode(self.path)
                if inode != self._inode:
                    self.incarnation += 1
                self._inode = inode
                self._suspect = False
            connection.incarnation = self.incarnation
            return connection

    def report_damage(self) -> None:
        """Make the next connection check the whole file, and set it aside if it is corrupt."""
        with self._lock:
            self._suspect = True
            self.incarnation += 1

    def check_in_place(self) -> None:
        """Make all connections reopen if the file was removed or replaced."""
        with self._lock:
            if self.path is not None and _inode(self.path) != self._inode:
                self.incarnation += 1

    def _open_or_replace(self, path: Path) -> Connection:
        try:
            return self._open_file(path)
        except _UnusableError as error:
            aside = _set_aside(path)
            _log.warning("%s set aside as %s because it %s", path, aside.name, error)
            return self._open_file(path)

    def _open_file(self, path: Path) -> Connection:
        # Never open and close an existing database outside SQLite: closing drops this process's
        # POSIX locks on it (sqlite.org/howtocorrupt.html, 2.2). A new file has no locks yet.
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            path.chmod(0o600)
        try:
            connection = _open(str(path))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise _UnusableError(f"is not a readable SQLite database ({error})") from error
        if self._suspect:
            try:
                (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.DatabaseError as error:
                finding = str(error)
            if finding != "ok":
                connection.close()
                raise _UnusableError(f"is corrupt ({finding})")
        return connection


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the block wrote; roll all of it back if the block or the commit fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _open(target: str) -> Connection:
    connection = sqlite3.connect(target, _BUSY_S, isolation_level=None, factory=Connection)
    try:
        _adopt(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _adopt(connection: Connection) -> None:
    application_id, version, tables = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    fresh = (application_id, version, tables) == (0, 0, 0)
    if not fresh and application_id != _APPLICATION_ID:
        raise _UnusableError("belongs to another program")
    if not fresh and version != _FORMAT:
        raise _UnusableError(f"is of format {version}, and this is format {_FORMAT}")
    if fresh:
        # A 384-d embedding and its 256-d probe make a row of 2.7 kB. A 4 kB page holds one row (4.3
        # kB of file per entry, measured), an 8 kB page barely three, and with 16 kB pages little is
        # wasted whatever the row size: 2.9 kB per entry.
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # With WAL, a power failure may lose the last commits but never damages the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    # As much as SQLite writes before it starts the file from the front, by its default: what one
    # long reader or one import made of it goes again then.
    connection.execute(f"PRAGMA journal_size_limit = {16 * 2**20}")
    connection.execute("PRAGMA temp_store = MEMORY")
    # Each of three connections fills its own. 4 MiB hold the inner pages of the indexes; others are
    # in the system's cache: with 60,000 entries, lookups and bulk writes were as fast as with 16.
    connection.execute(f"PRAGMA cache_size = -{4 * 2**10}")
    if fresh:
        connection.executescript(
            f"{_SCHEMA} PRAGMA application_id = {_APPLICATION_ID};"
            f" PRAGMA user_version = {_FORMAT}; COMMIT;"
        )
    connection.execute(_SNAPSHOTS)


def _set_aside(path: Path) -> Path:
    """Rename the database, and the journals that belong to it; return its new name."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.set-aside-{stamp}-{os.urandom(2).hex()}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; errors of the Python module itself have none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code if code is None else code & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error says that the file is corrupt, or no SQLite database."""
    return primary_code(error) in _DAMAGED
