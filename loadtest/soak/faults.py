"""What is done to a server on purpose while it is under load, and whether it has recovered."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import msgspec

from cacheproxy.errors import ConfigError

from ..errors import LoadTestError
from ..results.scrape import NoMetrics, scrape
from ..servers.served import Served
from ..traffic.scenario import Fault, Phase
from .vitals import children_of

_BEGINS, _ENDS = 0.2, 0.5
"""Shares of the phase."""

_LONGEST_S = 18.0
"""What a server needs at most grows with a fault's length: more requests and writes wait. So in a
long phase a fault lasts no longer than in one of a minute, and what a second one adds is a leak."""

_OF_WORKERS: tuple[Fault, ...] = ("worker-ends", "worker-killed", "worker-hangs")
"""Faults of the youngest worker, which another one replaces."""

_RECOVERY_S = 90.0
_RELOADS = 10
_SLOW_CLIENTS = 50

Undo = Callable[[], object]


@contextmanager
def injected(phase: Phase, served: Served | None) -> Iterator[None]:
    """Do to the server, during the block, what the phase says; wait until it has recovered.

    Raises:
        ConfigError: there is no server that was started for the run, or it has no workers.
        LoadTestError: the fault could not be injected, or the server has not recovered.
    """
    if phase.fault is None:
        yield
        return
    if served is None:
        raise ConfigError(f"{phase.name}: faults need --serve")
    before = _workers(served)
    if phase.fault in _OF_WORKERS and len(before) < 2:
        raise ConfigError(f"{phase.name}: {phase.fault} needs a server with several --workers")
    injecting = _Injection(phase, served)
    injecting.start()
    try:
        yield
    finally:
        injecting.join()
    if injecting.failure is not None:
        raise LoadTestError(f"{phase.name}: {phase.fault}: {injecting.failure}")
    gone = before[-1] if phase.fault in _OF_WORKERS else None
    _wait_recovered(phase, served, len(before), gone)


class _Injection(threading.Thread):
    def __init__(self, phase: Phase, served: Served) -> None:
        super().__init__(daemon=True)
        self._phase = phase
        self._served = served
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            time.sleep(_BEGINS * self._phase.seconds)
            undo = _FAULTS[self._phase.fault or "reloads"](self._served)
            try:
                time.sleep(min((_ENDS - _BEGINS) * self._phase.seconds, _LONGEST_S))
            finally:
                undo()
        except Exception as error:
            self.failure = error


def _wait_recovered(phase: Phase, served: Served, workers: int, gone: int | None) -> None:
    """Wait until as many workers serve as before, and the one that was meant to go has gone."""
    deadline = time.monotonic() + _RECOVERY_S
    while time.monotonic() < deadline:
        try:
            found = scrape(served.url).value("cacheproxy_workers")
        except NoMetrics:
            found = 0.0
        # A worker that is gone and not replaced yet is no child any more.
        children = _workers(served)
        if found == workers == len(children) and gone not in children:
            return
        time.sleep(0.2)
    raise LoadTestError(
        f"{phase.name}: after {phase.fault} the server has not recovered in {_RECOVERY_S:g} s"
    )


def _workers(served: Served) -> list[int]:
    return children_of(served.pid)


def _ask(served: Served, path: str, body: object, expected: int) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{served.admin_url}{path}",
        msgspec.json.encode(body),
        {"content-type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    if status != expected:
        raise LoadTestError(f"{path} was answered with {status}, not {expected}")


def _reloads(served: Served) -> Undo:
    """Change settings, valid and invalid ones in turns."""
    for number in range(_RELOADS):
        is_valid = number % 2 == 0
        ttl_s = 86_400 + number if is_valid else -1
        served.settings.write_text(f"[cache]\nttl_s = {ttl_s}\n", encoding="utf-8")
        _ask(served, "/admin/reload", {}, 200 if is_valid else 422)
    return lambda: served.settings.write_text("", encoding="utf-8")


def _purges(served: Served) -> Undo:
    """Purge the namespace that all requests use."""
    body = {"tenant": "default", "namespace": "default", "all": True}
    _ask(served, "/admin/purge", body, 200)
    return lambda: None


def _slow_clients(served: Served) -> Undo:
    """Open connections that never send a whole request."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    held = ExitStack()
    for _ in range(_SLOW_CLIENTS):
        connection = held.enter_context(socket.create_connection((host, int(port)), timeout=60))
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n")
    return held.close


def _cpu_hog(_: Served) -> Undo:
    """Take all cores, as a neighbour does."""
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in os.sched_getaffinity(0)
    ]

    def end() -> None:
        for hog in hogs:
            hog.kill()
            hog.wait()

    return end


def _store_locked(served: Served) -> Undo:
    """Keep the store's file from being written."""
    held = ExitStack()
    connection = held.enter_context(
        closing(
            sqlite3.connect(served.store, timeout=30, isolation_level=None, check_same_thread=False)
        )
    )
    connection.execute("BEGIN EXCLUSIVE")
    return held.close


def _upstream(fault: str) -> Callable[[Served], Undo]:
    def tell(served: Served, fault: str) -> None:
        request = urllib.request.Request(f"{served.upstream}/fault/{fault}", b"", method="POST")  # noqa: S310
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310

    def begin(served: Served) -> Undo:
        tell(served, fault)
        return lambda: tell(served, "none")

    return begin


def _to_youngest_worker(sent: signal.Signals) -> Callable[[Served], Undo]:
    """Send a signal to the youngest worker: the others live through the whole run."""

    def begin(served: Served) -> Undo:
        os.kill(_workers(served)[-1], sent)
        return lambda: None

    return begin


_FAULTS: dict[Fault, Callable[[Served], Undo]] = {
    "reloads": _reloads,
    "purges": _purges,
    "slow-clients": _slow_clients,
    "cpu-hog": _cpu_hog,
    "store-locked": _store_locked,
    "upstream-fails": _upstream("fails"),
    "upstream-stalls": _upstream("stalls"),
    "worker-ends": _to_youngest_worker(signal.SIGTERM),
    "worker-killed": _to_youngest_worker(signal.SIGKILL),
    "worker-hangs": _to_youngest_worker(signal.SIGSTOP),
}
"""What begins each fault; it returns what ends it."""
