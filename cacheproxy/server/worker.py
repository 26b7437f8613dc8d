"""One worker process: `python -m cacheproxy.server.worker FD`, started by the supervisor.

It serves like a single process, on a socket of its own. Its configuration and its orders arrive
over the socket with the descriptor FD; when that socket closes, the worker stops.
"""

import signal
import socket
import sys

from cacheproxy.errors import ConfigError, ModelError, StoreError
from cacheproxy.modelkit.install import load_installed
from cacheproxy.modelkit.manifest import load_manifests
from cacheproxy.server.app import App
from cacheproxy.server.link import WorkerLink
from cacheproxy.server.secrecy.core_dumps import forbid_core_dumps
from cacheproxy.server.serve import serve
from cacheproxy.telemetry.logs import start_logging


def main() -> None:
    """Serve until ordered to stop."""
    forbid_core_dumps()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor's: it has all workers reload
    link = WorkerLink(socket.socket(fileno=int(sys.argv[1])))
    job = link.receive_job()
    settings = job.settings
    start_logging(settings.log.level, settings.log.format, process_id=True)
    listeners = {name: socket.socket(fileno=fd) for name, fd in job.listeners.items()}
    try:
        installed = [
            load_installed(manifest.name, settings.home, settings.device)
            for manifest in load_manifests(settings.model)
        ]
        app = App(settings, installed, link, warms_up=job.warms_up)
        serve(app, listeners, settings, link)
    except (ConfigError, StoreError, ModelError) as error:
        link.say_failed(error)


if __name__ == "__main__":
    main()
