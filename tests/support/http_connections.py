"""The server's HTTP protocol before an application of a test's own."""

from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from cacheproxy.api.repeated.at_once import AtOnce
from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.server.http.connection import HttpConnection
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.metrics import Metrics


def answering_nothing_at_once() -> AtOnce:
    """Return what answers nothing at once until an endpoint is added."""
    return AtOnce(Journal("off"))


def maker_of_connections(
    app: Any,
    at_once: AtOnce,
    *,
    turns: LoopTurns | None = None,
    owner_of: Callable[[Any], str] = lambda headers: "",
) -> Callable[[], HttpConnection]:
    """Return what makes the protocol of a new connection, as `create_server` wants it."""
    config = uvicorn.Config(app, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    limits, shed, turns = LimitSettings(), Metrics().shed, turns or LoopTurns()
    return lambda: HttpConnection(
        *(config, ServerState(), {}),
        limits=limits,
        shed=shed,
        at_once=at_once,
        turns=turns,
        owner_of=owner_of,
    )
