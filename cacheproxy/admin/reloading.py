"""How a server takes settings that were read anew: all of its parts and processes, or none.

A part says at its start what it does with new settings (`Reloading`). What can fail is done first,
beside what runs; only if every part is ready do all of them change, in one turn of the event loop.
With several workers the supervisor has all of them prepare before it lets any of them change.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from cacheproxy.errors import CacheproxyError, ConfigError
from cacheproxy.settings.changes import Changes, changes, settings_hash
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.sources import check
from cacheproxy.telemetry.admin_log import tell_action
from cacheproxy.telemetry.reload_metrics import ReloadMetrics

logger = logging.getLogger(__name__)

SIGNAL = "signal"
"""Who reloads where nobody asks by HTTP: whoever sent a SIGHUP."""

Commit = Callable[[], None]

ReadSettings = Callable[[], Settings]
"""Reads the file, the environment and the flags again; raises ConfigError."""


class Reloaded(msgspec.Struct, frozen=True):
    """What a reload has changed."""

    changed: Annotated[list[str], Meta(description="The settings that have changed.")]
    needs_restart: Annotated[
        list[str],
        Meta(description="Settings that differ from those that run, and that need a restart."),
    ]
    settings_hash: Annotated[
        str, Meta(description="Of what runs now, as `cacheproxy_settings_info` has it.")
    ]


class ReloadSource(Protocol):
    """What reloads the settings of all processes of a server."""

    async def reload(self, actor: str) -> Reloaded:
        """Take the settings as they are now; `actor` is who asked for it, for the log.

        Raises:
            CacheproxyError: nothing has changed; as a rule `ConfigError`, as they are invalid.
        """


class Reloading:
    """What the parts of one process do with new settings.

    Attributes:
        settings: those that run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._prepare: list[Callable[[Settings], Commit]] = []

    def prepare_by(self, prepare: Callable[[Settings], Commit]) -> None:
        """Have a part prepare: it raises ConfigError, or returns what cannot fail any more."""
        self._prepare.append(prepare)

    def take_by(self, take: Callable[[Settings], object]) -> None:
        """Have a part take settings where that cannot fail: those that run, and all later ones."""
        take(self.settings)
        self._prepare.append(lambda settings: lambda: _ignore(take(settings)))

    def prepare(self, settings: Settings) -> Commit:
        """Prepare all parts; return what changes them.

        Raises:
            ConfigError: a part cannot take the settings; nothing has changed.
        """
        ready = [prepare(settings) for prepare in self._prepare]

        def commit() -> None:
            self.settings = settings
            for one in ready:
                one()

        return commit


class Reloads:
    """Reloads one after the other, and tells of them in the log and the metrics."""

    def __init__(
        self,
        read: ReadSettings,
        running: Callable[[], Settings],
        take: Callable[[Settings], Awaitable[None]],
        metrics: ReloadMetrics,
    ) -> None:
        """Prepare.

        Args:
            read: reads the settings anew.
            running: returns those that run.
            take: has every part take settings; raises CacheproxyError if one of them cannot.
            metrics: counts.
        """
        self._read = read
        self._running = running
        self._take = take
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self, actor: str) -> Reloaded:
        """See `ReloadSource`."""
        async with self._one_at_a_time:
            try:
                # Beside the event loop: to read and to check takes some 10 ms.
                found = await asyncio.to_thread(read_changes, self._running(), self._read)
                await self._take(found.settings)
            except CacheproxyError as error:
                self._metrics.reloads.labels("refused").inc()
                self._metrics.is_well.set(0)
                for line in str(error).splitlines():
                    logger.error("the settings stay as they are: %s", line)
                tell_action("reload", actor, "refused")
                raise
            self._metrics.reloads.labels("done").inc()
            self._metrics.is_well.set(1)
            self._metrics.succeeded_at.set(time.time())
        done = Reloaded(
            list(found.changed), list(found.needs_restart), settings_hash(found.settings)
        )
        facts = {
            "changed": ", ".join(done.changed) or "nothing",
            **({"needs_restart": ", ".join(done.needs_restart)} if done.needs_restart else {}),
        }
        tell_action("reload", actor, "done", **facts)
        return done

    def on_signal(self) -> None:
        """Reload soon; how that ends is told in the log."""
        task = asyncio.get_running_loop().create_task(self._by_signal())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _by_signal(self) -> None:
        try:
            await self.reload(SIGNAL)
        except CacheproxyError:
            return  # `reload` has told it


def read_changes(running: Settings, read: ReadSettings) -> Changes:
    """Return what there is to take; raises ConfigError, one line for each mistake."""
    found = changes(running, read())
    try:
        check(found.settings)
    except ConfigError as error:
        if not found.needs_restart:
            raise
        kept = ", ".join(found.needs_restart)
        raise ConfigError(f"{error}\nunchanged until a restart: {kept}") from None
    return found


def _ignore(_: object) -> None:
    return
