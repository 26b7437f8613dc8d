"""A thread with a database connection of its own, so that no SQLite call runs on the event loop."""

import asyncio
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Concatenate, ParamSpec, TypeVar

from cacheproxy.errors import StoreError
from cacheproxy.stores.database import Connection, Database, is_damage, primary_code

_P = ParamSpec("_P")
_T = TypeVar("_T")

_YIELD_EVERY_S = 0.5e-3
_YIELD_S = 50e-6

_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_TOOBIG,
}
"""Errors that say nothing against the connection; after any other it is opened anew."""


class GilYield:
    """Lets other threads have the GIL now and then while the event loop never rests.

    A saturated loop gives up the GIL in each poll, but takes it back before a thread that waits
    for it has woken; and as each wake-up restarts that thread's 5 ms of patience (CPython's
    `take_gil`), it never gets to demand it. A lookup of one key, six turns of the GIL, then took
    4 s; with a nap of the loop every 0.5 ms it takes 1.2 ms (measured).
    """

    def __init__(self) -> None:
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def during_job(self) -> Iterator[None]:
        """Yield while the block, a wait for a job on a thread, lasts; free for short ones."""
        self._jobs += 1
        if self._timer is None:
            self._rest_later()
        try:
            yield
        finally:
            self._jobs -= 1
            if not self._jobs and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _rest_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_YIELD_EVERY_S, self._rest)

    def _rest(self) -> None:
        time.sleep(_YIELD_S)
        self._rest_later()


class Worker:
    """One thread with one connection, opened on first use and opened anew after damage."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._gil_yield = GilYield()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"cacheproxy-{name}")
        self._connection: Connection | None = None

    async def run(
        self,
        job: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Return `job(connection, ...)`, run on the thread after all that was asked before.

        A caller that is cancelled before its turn takes its job with it; a job that has begun
        runs to its end, so that nothing is half done.

        Raises:
            StoreError: whatever went wrong.
        """
        call = functools.partial(self._run, job, *args, **kwargs)
        with self._gil_yield.during_job():
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def close(self) -> None:
        """Close the connection and end the thread, after all that was asked before."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._disconnect)
        finally:
            self._executor.shutdown(wait=False)

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
            raise StoreError(f"SQLite: {error}") from error
        except Exception as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> Connection:
        if self._connection and self._connection.generation != self._database.generation:
            self._disconnect()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # A connection that is sick may complain; it is let go either way.
            with suppress(sqlite3.Error):
                connection.close()
