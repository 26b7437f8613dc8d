"""A cacheproxy for one load test, on a free port, with a store that outlives its restarts."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .processes import free_port, running, serve_command


class Served:
    """Starts the server on entering a `with` block, and stops it at the end."""

    def __init__(self, home: Path, model: str, flags: Sequence[str]) -> None:
        self._home = home
        self._model = model
        self._flags = flags
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="cacheproxy-loadtest-")
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "Served":
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._running.close()
        self._folder.cleanup()

    def start(self) -> float:
        """Start the server; return the seconds until it was ready.

        Raises:
            LoadTestError: the server does not become ready.
        """
        store = ["--store", f"sqlite:///{self._folder.name}/cache.sqlite"]
        flags = [*([] if "--store" in self._flags else store), *self._flags]
        command = serve_command(self._home, self._model, self._port, *flags)
        started = time.monotonic()
        self._running.enter_context(running(command, self.url, "/readyz"))
        return time.monotonic() - started

    def restart(self) -> float:
        """Stop the server and start it again, as `start` does."""
        self._running.close()
        return self.start()
