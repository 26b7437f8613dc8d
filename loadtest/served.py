"""A cacheproxy of the load test's own, on a free port, with a store that outlives its restarts."""

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from loadtest.wrk import free_port, running


class Served:
    """Used as a context manager."""

    def __init__(self, home: Path, model: str, flags: Sequence[str]) -> None:
        self._home = home
        self._model = model
        self._flags = flags
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="cacheproxy-loadtest-")
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Where it is asked."""
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
            RuntimeError: it does not get ready.
        """
        command = [sys.executable, "-m", "cacheproxy", "serve", "--port", str(self._port)]
        command += ["--home", str(self._home), "--model", self._model, "--drain-s", "0"]
        if "--store" not in self._flags:
            command += ["--store", f"sqlite:///{self._folder.name}/cache.sqlite"]
        started = time.monotonic()
        self._running.enter_context(running([*command, *self._flags], self.url, "/readyz"))
        return time.monotonic() - started

    def restart(self) -> float:
        """Stop the server and start it again, as `start` does."""
        self._running.close()
        return self.start()
