"""The process's life: start, serve, drain, stop.

On SIGTERM the server reports not ready at once and accepts connections for another `drain_s`. It
then finishes the requests in flight, flushes the write-backs and exits with code 0. SIGINT skips
the delay. A signal that arrives after the socket is closed ends the process without finishing
requests. SIGHUP reloads the settings.

A worker receives these orders from its supervisor. Signals that reach it as well, for example from
a service manager, then have no effect.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import cast

import uvicorn

from cacheproxy.admin.reloading import Reloads
from cacheproxy.api.edge import Edge
from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.time_slices import be_prompt
from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.server.app import App
from cacheproxy.server.http.connection import HttpConnection
from cacheproxy.server.http.in_turn import OwnerOf
from cacheproxy.server.link import Stop, WorkerLink
from cacheproxy.server.listeners import ADMIN, PUBLIC, log_ready
from cacheproxy.server.secrecy.tls import ListenerTls, make_listener_tls
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_BACKLOG = 2_048

_FINISH_S = 30
"""How long shutdown waits for requests in flight."""

_GARBAGE_THRESHOLD = 50_000
"""Threshold of new objects at which the garbage collector runs. The requests in flight alone, which
hold no cycles, exceed Python's default of 700: the collector then took a fifth of the event loop's
time (measured, 64 clients)."""


class _BoundServer(uvicorn.Server):
    """uvicorn's server on sockets that are bound already, with a deadline for TLS handshakes."""

    def __init__(self, config: uvicorn.Config, handshake_s: float) -> None:
        super().__init__(config)
        self._handshake_s = handshake_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections; uvicorn would give a silent client a minute for its handshake."""
        if self.config.ssl is None:
            await super().startup(sockets)
            return
        make = functools.partial(
            cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                make,
                sock=listener,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=self._handshake_s,
            )
            for listener in sockets or ()
        ]
        self.started = True


class _Server(_BoundServer):
    """A server with our signals and our exit code."""

    def __init__(
        self,
        config: uvicorn.Config,
        handshake_s: float,
        app: App,
        drain_s: float,
        *,
        is_worker: bool,
    ) -> None:
        super().__init__(config, handshake_s)
        self._app = app
        self._drain_s = drain_s
        self._is_worker = is_worker

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals here: uvicorn would end the process by the signal instead of code 0."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal, self._drain_s)
        loop.add_signal_handler(signal.SIGINT, self._on_signal, 0.0)
        if isinstance(self._app.reloads, Reloads):
            loop.add_signal_handler(signal.SIGHUP, self._app.reloads.on_signal)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_signal(self, wait_s: float) -> None:
        self.stop(Stop(wait_s, at_once=self.should_exit and not self._is_worker))

    def stop(self, order: Stop) -> None:
        """Report not ready, and stop as ordered; of several orders the earliest applies."""
        if order.at_once:
            self.should_exit = self.force_exit = True
            return
        if self.started:
            logger.info("draining: no longer ready")
        self._app.drain()
        asyncio.get_running_loop().call_later(order.wait_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


class _AdminServer(_BoundServer):
    """A second server, which does not handle signals."""

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
    """Serve on the bound sockets until a signal ends it, or the supervisor, if there is a link.

    Raises:
        ConfigError: the files for TLS cannot be used.
    """
    tls = make_listener_tls(settings.tls)
    config = _configure(app.edge, app.owner_of, settings.limits, app.metrics, tls)
    handshake_s = settings.limits.head_timeout_s
    server = _Server(config, handshake_s, app, settings.drain_s, is_worker=link is not None)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_live(app, server, listeners, settings, link, tls))


def _configure(
    edge: Edge,
    owner_of: OwnerOf,
    limits: LimitSettings,
    metrics: Metrics,
    tls: ListenerTls | None,
) -> uvicorn.Config:
    connection = functools.partial(
        HttpConnection,
        limits=limits,
        shed=metrics.shed,
        at_once=edge.at_once,
        turns=LoopTurns(),
        owner_of=owner_of,
    )
    config = uvicorn.Config(
        edge,
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
    if tls is not None:
        config.load()
        config.ssl = tls.context
    return config


async def _live(
    app: App,
    server: _Server,
    listeners: Mapping[str, socket.socket],
    settings: Settings,
    link: WorkerLink | None,
    tls: ListenerTls | None,
) -> None:
    be_prompt()
    if link is not None:
        await link.open(app.metrics, app.reloading, server.stop)
    await app.start()
    # Objects from start-up live as long as the process: the collector need not scan them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    listener = listeners[PUBLIC]
    watching = None if tls is None else asyncio.create_task(tls.watch(app.metrics))
    async with _administering(app, settings, listeners.get(ADMIN), tls):
        listener.listen(_BACKLOG)  # before anybody is told, so that nobody who is told is refused
        if link is not None:
            link.say_ready()
        else:
            log_ready(listeners, settings)
        await server.serve(sockets=[listener])
    await stop_tasks(watching)
    await app.stop()
    if link is not None:
        await link.close()
    logger.info("stopped")


@contextlib.asynccontextmanager
async def _administering(
    app: App, settings: Settings, listener: socket.socket | None, tls: ListenerTls | None
) -> AsyncIterator[None]:
    """Serve operators on a socket of their own during the block."""
    if listener is None:
        yield
        return
    config = _configure(
        app.admin_edge,
        app.owner_of,
        settings.limits,
        app.metrics,
        tls if settings.is_admin_tls else None,
    )
    server = _AdminServer(config, settings.limits.head_timeout_s)
    listener.listen()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
