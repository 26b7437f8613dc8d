"""TLS of the listeners: one context, whose certificate is replaced while connections go on.

The files are looked at every few seconds rather than on a signal: certificates are renewed by
programs (cert-manager, certbot) that replace files and know nothing of our processes, and each of
several workers sees the change by itself. A pair that does not load is left alone, and the old one
stays in use. Connections that are open keep the certificate that they began with.
"""

import asyncio
import logging
import os
import ssl
from pathlib import Path

from cacheproxy.errors import ConfigError
from cacheproxy.settings.secrecy import TlsSettings
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0

_Stamp = tuple[tuple[int, int, int], ...]


class ListenerTls:
    """What the listeners need to speak TLS.

    Attributes:
        context: of all connections that begin.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Read the files.

        Raises:
            ConfigError: they cannot be read, or do not belong together.
        """
        self._files = certificate, key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        self._stamp = self._look()
        try:
            if client_ca is not None:
                self.context.load_verify_locations(client_ca)
                self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_cert_chain(*self._files, _no_password)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise ConfigError(f"tls: {certificate}, {key}: {_told(error)}") from None

    async def watch(self, metrics: Metrics) -> None:
        """Read the certificate again whenever its files change, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._reload_if_changed(metrics)

    def _reload_if_changed(self, metrics: Metrics) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            # Tried apart first: half of a pair must not get into the one in use.
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trial.load_cert_chain(*self._files, _no_password)
            self.context.load_cert_chain(*self._files, _no_password)
        except (OSError, ValueError) as error:
            metrics.tls_reloads.labels("failed").inc()
            logger.warning("the new certificate is not used: %s", _told(error))
        else:
            metrics.tls_reloads.labels("done").inc()
            logger.info("the certificate was read again")

    def _look(self) -> _Stamp:
        """Return what differs once a file has changed, through symbolic links."""
        stamps = []
        for file in self._files:
            try:
                status = os.stat(file)
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(stamps)


def make_listener_tls(settings: TlsSettings) -> ListenerTls | None:
    """Return the listeners' TLS, or None where there is no certificate.

    Raises:
        ConfigError: the files cannot be used.
    """
    if settings.certificate is None or settings.key is None:
        return None
    return ListenerTls(settings.certificate, settings.key, settings.client_ca)


def _no_password() -> str:
    # Otherwise OpenSSL would ask for one on the terminal.
    raise ValueError("the private key is encrypted; it must not be")


def _told(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error)
