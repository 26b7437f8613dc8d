"""A thread with a database connection of its own, so that no SQLite call runs on the event loop."""

import functools
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import StoreError, StoreErrorKind
from cacheproxy.stores.embedded.database import Connection, Database, is_damage, primary_code

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_TOOBIG,
}
"""Errors after which the connection is still good; after any other one it is reopened."""

_INVALID = {None, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG}
"""Errors caused by the data that was to be written, not by the database. Errors of the Python
module itself, which have no code, are of this kind."""


class DatabaseThread:
    """One thread with one connection, which is opened on first use and reopened after damage."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._thread = JobThread(f"cacheproxy-{name}")
        self._connection: Connection | None = None

    async def run(
        self,
        job: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Return `job(connection, ...)`, run on the thread after all earlier jobs.

        If the caller is cancelled before the job begins, the job is dropped; a job that has begun
        runs to its end.

        Raises:
            StoreError: the job failed, for whatever reason.
        """
        return await self._thread.run(functools.partial(self._run, job, *args, **kwargs))

    async def close(self) -> None:
        """Close the connection and end the thread, after all earlier jobs."""
        try:
            await self._thread.run(self._disconnect)
        finally:
            self._thread.close()

    def _run(
        self,
        job: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        try:
            return job(self._connect(), *args, **kwargs)
        except StoreError:
            raise
        except sqlite3.Error as error:
            if is_damage(error):
                self._database.report_damage()
            if primary_code(error) not in _PASSING:
                self._disconnect()
            kind: StoreErrorKind = "invalid" if primary_code(error) in _INVALID else "unavailable"
            raise StoreError(f"SQLite: {error}", kind) from error
        except Exception as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> Connection:
        if self._connection and self._connection.incarnation != self._database.incarnation:
            self._disconnect()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # A broken connection may fail to close; it is dropped either way.
            with suppress(sqlite3.Error):
                connection.close()
