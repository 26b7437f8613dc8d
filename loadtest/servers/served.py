"""A cacheproxy for one load test, on free ports, with a store that outlives its restarts."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .bare_llm import running_llm
from .processes import free_port, running, serve_command

_ANSWER_BYTES = 400


class Served:
    """Starts the server on entering a `with` block, and stops it at the end.

    Attributes:
        pid: of its process, or of the one that supervises its workers.
        settings: its settings file, which says nothing at first.
        store: the file of its store, unless the flags name another store.
        log: what it says.
        upstream: URL of the upstream that was started for it, or None.
    """

    def __init__(
        self, home: Path, model: str, flags: Sequence[str], *, has_upstream: bool = False
    ) -> None:
        self._home = home
        self._model = model
        self._flags = flags
        self._port = free_port()
        self._admin_port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="cacheproxy-loadtest-")
        self._has_upstream = has_upstream
        self._upstream_running = ExitStack()
        self._running = ExitStack()
        self.pid = 0
        self.settings = Path(self._folder.name) / "cacheproxy.toml"
        self.store = Path(self._folder.name) / "cache.sqlite"
        self.log = Path(self._folder.name) / "log"
        self.upstream: str | None = None

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def admin_url(self) -> str:
        """The URL of its admin listener."""
        return f"http://127.0.0.1:{self._admin_port}"

    def __enter__(self) -> "Served":
        self.settings.touch()
        if self._has_upstream:
            running = running_llm(_ANSWER_BYTES)
            self.upstream = self._upstream_running.enter_context(running)
        try:
            self.start()
        except BaseException:
            self._upstream_running.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._running.close()
        self._upstream_running.close()
        self._folder.cleanup()

    def start(self) -> float:
        """Start the server; return the seconds until it was ready.

        Raises:
            LoadTestError: the server does not become ready.
        """
        flags = ["--config", str(self.settings), "--admin-port", str(self._admin_port)]
        if "--store" not in self._flags:
            flags += ["--store", f"sqlite:///{self.store}"]
        if self.upstream is not None:
            flags += ["--upstream", f"{self.upstream}/v1"]
        command = serve_command(self._home, self._model, self._port, *flags, *self._flags)
        started = time.monotonic()
        running_it = running(command, self.url, "/readyz", on_start=self._note_pid, log=self.log)
        self._running.enter_context(running_it)
        return time.monotonic() - started

    def restart(self) -> float:
        """Stop the server and start it again, as `start` does."""
        self._running.close()
        return self.start()

    def _note_pid(self, pid: int) -> None:
        self.pid = pid
