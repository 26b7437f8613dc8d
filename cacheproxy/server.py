"""The process's life: start, serve, drain, stop.

SIGTERM: not ready at once, for `drain_s` still accepting, then the requests in flight are finished
and the write-backs flushed, and the process ends with code 0. SIGINT skips the wait; a signal that
comes once the socket is closed ends the process without finishing requests.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from cacheproxy.app import App
from cacheproxy.config import Settings
from cacheproxy.errors import ConfigError

logger = logging.getLogger(__name__)

_BACKLOG = 2_048

_FINISH_S = 30
"""Longest time for which requests in flight are waited for."""

_GARBAGE_THRESHOLD = 50_000
"""New objects that outlive their request before the collector looks for cycles. Python's own 700
is passed by the requests in flight alone, which hold no cycles: a fifth of the event loop's time
went into looking (measured, 64 clients)."""


class _Server(uvicorn.Server):
    """uvicorn's server, with our signals and our exit code."""

    def __init__(self, config: uvicorn.Config, app: App, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals ourselves: uvicorn's way ends the process by the signal, not with 0."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain, loop, self._drain_s)
        loop.add_signal_handler(signal.SIGINT, self._drain, loop, 0.0)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    def _drain(self, loop: asyncio.AbstractEventLoop, wait_s: float) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        logger.info("draining: not ready from now on")
        self._app.drain()
        loop.call_later(wait_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


class _AdminServer(uvicorn.Server):
    """uvicorn's server beside ours: signals are not its business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the main server."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; binding early makes a taken port a clear error.

    Raises:
        ConfigError: the address cannot be bound.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def serve(
    app: App, listener: socket.socket, settings: Settings, admin_listener: socket.socket | None
) -> None:
    """Serve on the bound sockets until a signal ends it."""
    config = _configure(app.asgi)
    server = _Server(config, app, settings.drain_s)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_live(app, server, listener, admin_listener))


def _configure(asgi: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        asgi,
        loop="uvloop",
        http="httptools",
        backlog=_BACKLOG,
        lifespan="off",
        ws="none",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_FINISH_S,
    )


async def _live(
    app: App,
    server: _Server,
    listener: socket.socket,
    admin_listener: socket.socket | None,
) -> None:
    await app.start()
    # What start-up made lives as long as the process: the collector need not walk it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    async with _administering(app, admin_listener):
        listener.listen(_BACKLOG)  # before anybody is told, so that nobody who is told is refused
        logger.info("ready: http://%s/v1", _address(listener))
        await server.serve(sockets=[listener])
    await app.stop()
    logger.info("stopped")


@contextlib.asynccontextmanager
async def _administering(app: App, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve operators on a socket of their own during the block."""
    if listener is None:
        yield
        return
    server = _AdminServer(_configure(app.admin_asgi))
    listener.listen()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    logger.info("for operators: http://%s/admin", _address(listener))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
