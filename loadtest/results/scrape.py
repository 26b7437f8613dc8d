"""Reads the server's metrics: once a second, and before and after a phase."""

import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from cacheproxy.errors import CacheproxyError

_TIMEOUT_S = 30.0
_EVERY_S = 1.0
_REPORTS_EVERY_S = 1.5
_MOST_READINGS = 10
_AGAIN_S = 0.5
_MOST_ATTEMPTS = 20
_UNAVAILABLE = 503
_COUNTED = ("cacheproxy_requests_total", "cacheproxy_lookups_total")

_OWN = "cacheproxy_build_info"
_MEMORY = "process_resident_memory_bytes"
_QUEUE = "cacheproxy_queue_depth"
_ERROR_BOUND = "cacheproxy_semantic_error_upper_bound"


class NoMetrics(CacheproxyError):
    """The server has no metrics, or those of another product."""


class NoMetricsNow(NoMetrics):
    """The server has none at the moment, and says so (503)."""


class Moment(msgspec.Struct, frozen=True):
    """Gauges at one moment.

    Attributes:
        at_s: seconds from the start of the phase.
        memory_bytes: resident memory of all processes of the server.
        queue_texts: number of texts that waited for inference.
        error_bound: highest upper bound on wrong semantic hits, or None while there is none.
    """

    at_s: float
    memory_bytes: float
    queue_texts: float
    error_bound: float | None


@dataclass(frozen=True)
class Metrics:
    """The content of `/metrics` at one moment."""

    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]

    def sum_by(self, name: str, *labels: str, **where: str) -> dict[tuple[str, ...], float]:
        """Return the values of a series by `labels`, summed over all samples with `where`."""
        sums: dict[tuple[str, ...], float] = {}
        for found, value in self.samples.get(name, []):
            if where.items() <= found.items():
                key = tuple(found.get(label, "") for label in labels)
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def value(self, name: str) -> float:
        """Return the sum of a series, 0 if it does not exist."""
        return sum(value for _, value in self.samples.get(name, []))

    def greatest(self, name: str) -> float | None:
        """Return the greatest finite value of a series, or None."""
        values = [value for _, value in self.samples.get(name, []) if math.isfinite(value)]
        return max(values, default=None)


def scrape(root: str, only: tuple[str, ...] = ()) -> Metrics:
    """Return the content of `/metrics`, or of these series alone, which takes far less time.

    Raises:
        NoMetrics: it cannot be read, or belongs to another product.
    """
    try:
        with urllib.request.urlopen(f"{root}/metrics", timeout=_TIMEOUT_S) as response:  # noqa: S310
            text = response.read().decode()
        if only:
            text = "".join(line for line in text.splitlines(True) if line.startswith((*only, _OWN)))
        families = list(text_string_to_metric_families(text))
    except urllib.error.HTTPError as error:
        kind = NoMetricsNow if error.code == _UNAVAILABLE else NoMetrics
        raise kind(f"{root}/metrics: {error}") from None
    except (OSError, ValueError) as error:
        raise NoMetrics(f"{root}/metrics: {error}") from None
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    if "cacheproxy_requests_total" not in samples and _OWN not in samples:
        raise NoMetrics(f"{root}/metrics does not belong to cacheproxy")
    return Metrics(samples)


def settled_scrape(root: str) -> Metrics:
    """Return the metrics of a server that has nothing to do, once they are complete.

    With several workers, one that is slow to report counts with what it knew a second ago. So they
    are read until nothing is counted any more. A server that has no metrics at the moment, because
    its workers do not report in time, say, is asked again for ten seconds: a run may have lasted an
    hour by then.

    Raises:
        NoMetrics: as `scrape` does.
    """
    found = _patient_scrape(root)
    for _ in range(_MOST_READINGS):
        if found.value("cacheproxy_workers") < 2:
            break
        time.sleep(_REPORTS_EVERY_S)
        before, found = found, _patient_scrape(root)
        if all(before.value(name) == found.value(name) for name in _COUNTED):
            break
    return found


def _patient_scrape(root: str) -> Metrics:
    for _ in range(_MOST_ATTEMPTS - 1):
        with suppress(NoMetricsNow):
            return scrape(root)
        time.sleep(_AGAIN_S)
    return scrape(root)


@dataclass
class Watch:
    """Reads the metrics once a second, in a thread, during a `with` block."""

    root: str
    moments: list[Moment] = field(default_factory=list)

    def __enter__(self) -> "Watch":
        self._over = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _read_on(self) -> None:
        while True:
            try:
                # All of it would take a core a tenth of a second, which the server then lacks.
                found = scrape(self.root, (_MEMORY, _QUEUE, _ERROR_BOUND))
            except NoMetricsNow:
                if self._over.wait(_AGAIN_S):
                    return
                continue
            except NoMetrics:
                return
            self.moments.append(
                Moment(
                    time.monotonic() - self._started,
                    found.value(_MEMORY),
                    found.value(_QUEUE),
                    found.greatest(_ERROR_BOUND),
                )
            )
            if self._over.wait(_EVERY_S):
                return
