"""`cacheproxy serve`: one process, or a supervisor with several workers."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cacheproxy.admin.reloading import ReadSettings
from cacheproxy.cli.failures import EXIT_NO_MODEL, EXIT_UNAVAILABLE, EXIT_USAGE, end
from cacheproxy.cli.flags import load, reader, settings_flags
from cacheproxy.cli.installed import installed_models
from cacheproxy.errors import ConfigError, ModelError, StoreError, WorkerDied
from cacheproxy.server.listeners import ADMIN, PUBLIC, bind, reserve
from cacheproxy.server.secrecy.core_dumps import forbid_core_dumps
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.logs import start_logging


@click.command()
@settings_flags()
def serve(config: Path | None, **flags: Any) -> None:
    """Serve OpenAI-compatible embeddings, from the cache wherever it can answer."""
    forbid_core_dumps()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    settings, read = load(config, flags), reader(config, flags)
    start_logging(settings.log.level, settings.log.format, process_id=settings.workers > 1)
    try:
        if settings.workers > 1:
            _serve_by_workers(settings, read)
        else:
            _serve_by_itself(settings, read)
    except (ConfigError, StoreError) as error:
        end(EXIT_USAGE, error)
    except ModelError as error:
        end(EXIT_NO_MODEL, error)
    except WorkerDied as error:
        end(EXIT_UNAVAILABLE, error)


def _serve_by_itself(settings: Settings, read: ReadSettings) -> None:
    # Imported late: a mistaken setting is told without waiting for the runtime to load.
    from cacheproxy.server.app import App
    from cacheproxy.server.serve import serve as serve_app

    listeners = _claim(settings, bind)
    app = App(settings, installed_models(settings), read=read)
    serve_app(app, listeners, settings)


def _serve_by_workers(settings: Settings, read: ReadSettings) -> None:
    from cacheproxy.server.supervisor import supervise

    reserved = _claim(settings, reserve)
    installed_models(settings)  # built once, not by each worker
    supervise(settings, reserved, read)


def _claim(
    settings: Settings, claim: Callable[[str, int], socket.socket]
) -> dict[str, socket.socket]:
    """Return a socket for every address that is to be listened on."""
    admin = settings.admin
    claimed = {PUBLIC: claim(settings.host, settings.port)}
    if admin.port is not None:
        claimed[ADMIN] = claim(admin.host, admin.port)
    return claimed
