"""A file of API keys that is read again whenever it has changed, so that keys rotate and end.

It is looked at once a second rather than on a signal: every worker process sees it by itself, and
so does a container whose file is replaced from outside. A file that cannot be read changes nothing
and is told in the log: keys stay as they were, and none becomes valid. A reload of the
settings reads it, too.
"""

import asyncio
import logging
import tomllib
from pathlib import Path

from prometheus_client import Counter
from pydantic import TypeAdapter, ValidationError

from cacheproxy.api.access.key_ring import KeyRing
from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import ConfigError
from cacheproxy.settings.tenants import ApiKeys
from cacheproxy.telemetry.admin_log import tell_action

logger = logging.getLogger(__name__)

_LOOK_S = 1.0

_KEYS: TypeAdapter[ApiKeys] = TypeAdapter(ApiKeys)

_Stamp = tuple[int, int, int] | None


class KeyFile:
    """Keeps a ring's keys those of a file; belongs to one event loop."""

    def __init__(self, path: Path, ring: KeyRing, reloads: Counter) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read.
        """
        self._path = path
        self._ring = ring
        self._reloads = reloads
        self._stamp = self._look()
        self._task: asyncio.Task[None] | None = None
        ring.replace(self.read())

    def start(self) -> None:
        """Look at the file from now on, in the background of the running event loop."""
        self._task = asyncio.create_task(self._watch(), name="key-file")

    async def stop(self) -> None:
        """Stop looking."""
        await stop_tasks(self._task)

    def read(self) -> ApiKeys:
        """Return the keys that are in the file now; raises ConfigError."""
        return read_keys(self._path)

    def reload(self) -> bool:
        """Read the file; return whether that succeeded. If not, the keys stay what they are."""
        try:
            self._ring.replace(self.read())
        except ConfigError as error:
            self._reloads.labels("failed").inc()
            logger.error("API keys stay as they are: %s", error)
            tell_action("reload keys", "file", "failed")
            return False
        self._reloads.labels("done").inc()
        tell_action("reload keys", "file", "done", keys=len(self._ring))
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self.reload()

    def _look(self) -> _Stamp:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def read_keys(path: Path) -> ApiKeys:
    """Return the keys in a file: TOML, a list of hashes or tables for each tenant.

    Raises:
        ConfigError: it cannot be read; one line, which quotes nothing of the file.
    """
    try:
        return _KEYS.validate_python(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"api_keys_file: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_keys_file: {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"api_keys_file: {path}: {place}: {first['msg']}") from None
