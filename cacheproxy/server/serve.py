"""The process's life: start, serve, drain, stop.

SIGTERM: not ready at once, for `drain_s` still accepting, then the requests in flight are finished
and the write-backs flushed, and the process ends with code 0. SIGINT skips the wait; a signal that
comes once the socket is closed ends the process without finishing requests.

A worker is told by its supervisor what a single process is told by signals; signals that reach it
as well, as from a service manager, change nothing then.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from cacheproxy.concurrency.time_slices import be_prompt
from cacheproxy.server.app import App
from cacheproxy.server.http_connection import HttpConnection
from cacheproxy.server.link import Stop, WorkerLink
from cacheproxy.server.listeners import ADMIN, PUBLIC, log_ready
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.metrics import Metrics

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

    def __init__(
        self, config: uvicorn.Config, app: App, drain_s: float, *, is_worker: bool
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._is_worker = is_worker

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals ourselves: uvicorn's way ends the process by the signal, not with 0."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal, self._drain_s)
        loop.add_signal_handler(signal.SIGINT, self._on_signal, 0.0)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    def _on_signal(self, wait_s: float) -> None:
        self.stop(Stop(wait_s, at_once=self.should_exit and not self._is_worker))

    def stop(self, order: Stop) -> None:
        """Be ready no more, and end as ordered; the earliest of several orders holds."""
        if order.at_once:
            self.should_exit = self.force_exit = True
            return
        logger.info("draining: not ready from now on")
        self._app.drain()
        asyncio.get_running_loop().call_later(order.wait_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


class _AdminServer(uvicorn.Server):
    """uvicorn's server beside ours: signals are not its business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the main server."""
        yield


def serve(
    app: App,
    listeners: Mapping[str, socket.socket],
    settings: Settings,
    link: WorkerLink | None = None,
) -> None:
    """Serve on the bound sockets until a signal ends it, or the supervisor, if there is a link."""
    config = _configure(app.asgi, settings.limits, app.metrics)
    server = _Server(config, app, settings.drain_s, is_worker=link is not None)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_live(app, server, listeners, settings.limits, link))


def _configure(asgi: ASGIApp, limits: LimitSettings, metrics: Metrics) -> uvicorn.Config:
    connection = functools.partial(HttpConnection, limits=limits, shed=metrics.shed)
    return uvicorn.Config(
        asgi,
        loop="uvloop",
        http=cast(type[HttpConnection], connection),  # uvicorn only calls it
        timeout_keep_alive=limits.keep_alive_s,
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
    listeners: Mapping[str, socket.socket],
    limits: LimitSettings,
    link: WorkerLink | None,
) -> None:
    be_prompt()
    if link is not None:
        await link.open(app.metrics, server.stop)
    await app.start()
    # What start-up made lives as long as the process: the collector need not walk it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    listener = listeners[PUBLIC]
    async with _administering(app, limits, listeners.get(ADMIN)):
        listener.listen(_BACKLOG)  # before anybody is told, so that nobody who is told is refused
        if link is not None:
            link.say_ready()
        else:
            log_ready(listeners)
        await server.serve(sockets=[listener])
    await app.stop()
    if link is not None:
        await link.close()
    logger.info("stopped")


@contextlib.asynccontextmanager
async def _administering(
    app: App, limits: LimitSettings, listener: socket.socket | None
) -> AsyncIterator[None]:
    """Serve operators on a socket of their own during the block."""
    if listener is None:
        yield
        return
    server = _AdminServer(_configure(app.admin_asgi, limits, app.metrics))
    listener.listen()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
