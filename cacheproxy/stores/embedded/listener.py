"""Polls the SQLite file for notices that other processes wrote: purges and replaced entries.

Every commit changes the file's write-ahead log. While that is unchanged there are no notices, and
no thread is woken to read them, which halves the cost of polling in an idle server, to some 0.5 %
of a core (measured).
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded.database import Connection
from cacheproxy.stores.embedded.database_thread import DatabaseThread
from cacheproxy.stores.embedded.notices import (
    REPLACEMENTS_KEPT_S,
    News,
    Place,
    current_place,
    read_news,
)
from cacheproxy.stores.purges import Purges

_log = logging.getLogger(__name__)

_INTERVAL_S = 0.04
"""The delay with which a notice is read, at most, while the reader's thread is not busy."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one poll read, from which incarnation of the file, and when (monotonic, seconds)."""

    news: News
    incarnation: int
    at: float


class Listener:
    """Polls for notices of other processes and passes them on to `purges`."""

    def __init__(self, path: Path, reader: DatabaseThread, purges: Purges, own_id: bytes) -> None:
        self._journal = Path(f"{path}-wal")
        self._reader = reader
        self._purges = purges
        self._own_id = own_id
        self._last = _Look(News([], [], Place()), 0, 0.0)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start polling; notices from before count as heard when this returns.

        Raises:
            StoreError: the database cannot be read.
        """
        self._last = await self._reader.run(self._begin)
        self._purges.missed(self._last.news.place.generation)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop polling."""
        await stop_tasks(self._task)

    async def _run(self) -> None:
        seen, is_new = self._journal_state(), True
        while True:
            await asyncio.sleep(_INTERVAL_S)
            before, was_new = seen, is_new
            seen = self._journal_state()
            is_new = seen != before
            # Read once more after a change: another one may carry the same modification time.
            if not is_new and not was_new and self._purges.is_listening:
                self._last = replace(self._last, at=time.monotonic())
                continue
            try:
                self._hear(await self._reader.run(self._look))
                self._purges.is_listening = True
            except StoreError as error:
                if self._purges.is_listening:
                    _log.warning("cannot read notices of other processes: %s", error)
                self._purges.is_listening = False

    def _hear(self, look: _Look) -> None:
        is_late = look.at - self._last.at > REPLACEMENTS_KEPT_S / 2
        if is_late or look.incarnation != self._last.incarnation:
            self._purges.missed(look.news.place.generation)
        for purge in look.news.purges:
            self._purges.purged(purge.subject, purge.generation)
        self._purges.replaced(look.news.replaced)
        self._last = look

    def _journal_state(self) -> tuple[int, int, int] | None:
        try:
            found = self._journal.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    # What follows runs on the reader's thread.

    def _begin(self, connection: Connection) -> _Look:
        news = News([], [], current_place(connection))
        return _Look(news, connection.incarnation, time.monotonic())

    def _look(self, connection: Connection) -> _Look:
        is_same = connection.incarnation == self._last.incarnation
        place = self._last.news.place if is_same else Place()
        news = read_news(connection, place, self._own_id)
        return _Look(news, connection.incarnation, time.monotonic())
