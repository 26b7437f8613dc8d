"""Records requests for replay by a load tester: times, lengths, hashes, and texts if enabled.

It is off unless `record.path` is set. The event loop only queues a request's bytes; a separate
thread parses them and writes lines, so that a slow disk delays no request. Requests that do not fit
in the queue are dropped and counted. A request is one line of JSON:

    {"at": Unix seconds, "route": …, "model": …, "namespace": hash, "hashes": […],
     "characters": […], "tokens": […], "form": …, "dimensions": …, "streamed": …, "texts": […]}

The lists have an element for each input; `tokens` is present if the client sent token ids, `texts`
only with `record.texts`. The inputs of a rerank request are its documents; its line also has the
query's `query_hash` and `query_characters`, and `query` only with `record.texts`. Hashes are keyed,
so that texts cannot be guessed from the file alone. The key is stored next to it (`PATH.key`), so
that a text has the same hash in all workers and after restarts.
"""

import hashlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from filelock import FileLock

from cacheproxy.errors import ConfigError
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_MOST_QUEUED_BYTES = 32 * 2**20
_MOST_QUEUED = 20_000
"""Bounds of the queue: requests, and their total bytes."""

_PAUSE_S = 0.25
"""Interval between two writes of the queue, which is what a crash may lose."""

_PART = 200
"""Requests per write, so that memory stays bounded."""

_LOCK_S = 5.0
"""Longest wait for another worker's write; after that the requests are dropped."""

_COMPLAIN_S = 60.0
_KEY_BYTES = 32
_HASH_BYTES = 16
_PRIVATE = 0o600


_INPUTS = ("input", "texts", "inputs", "documents")
"""Names of what requests ask for."""


class _Queued(NamedTuple):
    at: float
    route: str
    namespace_id: str
    body: bytes


class Recorder:
    """Writes recorded requests, on its own thread, into one file for all workers."""

    def __init__(self, path: Path, *, with_texts: bool, max_bytes: int, metrics: Metrics) -> None:
        """Set the file; at `max_bytes` it is renamed to `PATH.1`, replacing the previous one."""
        self._path = path
        self._with_texts = with_texts
        self._max_bytes = max_bytes
        self._recorded = metrics.recorded
        self._dropped = metrics.unrecorded
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="recorder", daemon=True)
        self._complained_at = -_COMPLAIN_S
        self._key = b""

    def start(self) -> None:
        """Open the file and begin.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            self._key = self._read_key()
            self._append(b"")
        except OSError as error:
            raise ConfigError(f"record.path: {self._path}: {error.strerror or error}") from None
        self._thread.start()

    def stop(self) -> None:
        """Write the queued requests, and stop; blocks until then."""
        self._stopping.set()
        self._thread.join()

    def put(self, route: str, namespace_id: str, body: bytes) -> None:
        """Queue a request for recording; never blocks and never fails."""
        with self._lock:
            is_full = (
                len(self._queue) >= _MOST_QUEUED
                or self._queued_bytes + len(body) > _MOST_QUEUED_BYTES
            )
            if not is_full:
                self._queue.append(_Queued(time.time(), route, namespace_id, body))
                self._queued_bytes += len(body)
        if is_full:
            self._dropped.labels("full").inc()

    def _live(self) -> None:
        while True:
            is_last = self._stopping.wait(_PAUSE_S)
            while part := self._take():
                self._write(part)
            if is_last:
                return

    def _take(self) -> list[_Queued]:
        with self._lock:
            part = [self._queue.popleft() for _ in range(min(_PART, len(self._queue)))]
            self._queued_bytes -= sum(len(queued.body) for queued in part)
        return part

    def _write(self, part: list[_Queued]) -> None:
        lines = [line for queued in part if (line := self._line(queued))]
        self._dropped.labels("unreadable").inc(len(part) - len(lines))
        try:
            self._append(b"".join(lines))
        except OSError as error:
            self._dropped.labels("error").inc(len(lines))
            if time.monotonic() - self._complained_at >= _COMPLAIN_S:
                self._complained_at = time.monotonic()
                logger.warning(
                    "requests could not be recorded: %s: %s", self._path, error.strerror or error
                )
        else:
            self._recorded.inc(len(lines))

    def _line(self, queued: _Queued) -> bytes | None:
        try:
            body = msgspec.json.decode(queued.body)
            query, inputs = _query_of(body), _inputs_of(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if inputs is None:
            return None
        line: dict[str, Any] = {
            "at": round(queued.at, 6),
            "route": queued.route,
            "model": body.get("model"),
            "namespace": self._hash(queued.namespace_id.encode()),
            "hashes": [self._hash(msgspec.json.encode(given)) for given in inputs],
            "characters": [len(given) if isinstance(given, str) else None for given in inputs],
            "tokens": [len(given) if isinstance(given, list) else None for given in inputs],
            "form": body.get("encoding_format"),
            "dimensions": body.get("dimensions"),
            "streamed": body.get("stream") is True,
        }
        if query is not None:
            line["query_hash"] = self._hash(msgspec.json.encode(query))
            line["query_characters"] = len(query)
        if self._with_texts:
            line["texts"] = inputs
            if query is not None:
                line["query"] = query
        return msgspec.json.encode(line) + b"\n"

    def _hash(self, data: bytes) -> str:
        return _hashed(data, self._key)

    def _read_key(self) -> bytes:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(), _opened(self._beside(".key"), os.O_RDWR) as descriptor:
            key = os.read(descriptor, _KEY_BYTES)
            if len(key) < _KEY_BYTES:
                key = secrets.token_bytes(_KEY_BYTES)
                os.pwrite(descriptor, key, 0)
        return key

    def _append(self, data: bytes) -> None:
        """Append to the file under a lock; start a new one if it is full."""
        with self._locked():
            if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
                os.replace(self._path, self._beside(".1"))
            with _opened(self._path, os.O_WRONLY | os.O_APPEND) as descriptor:
                left = memoryview(data)
                while left:
                    left = left[os.write(descriptor, left) :]

    def _locked(self) -> FileLock:
        return FileLock(self._beside(".lock"), timeout=_LOCK_S, mode=_PRIVATE)

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)


def namespace_hash(path: Path, namespace_id: str) -> str:
    """Return the hash that stands for a namespace in the recording at a path.

    Raises:
        ConfigError: its key cannot be read.
    """
    beside = path.with_name(f"{path.name}.key")
    try:
        key = beside.read_bytes()[:_KEY_BYTES]
    except OSError as error:
        raise ConfigError(f"{beside}: {error.strerror or error}") from None
    return _hashed(namespace_id.encode(), key)


def _hashed(data: bytes, key: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_HASH_BYTES, key=key).hexdigest()


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CREAT, _PRIVATE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _inputs_of(body: Any) -> list[Any] | None:
    """Return what each result, or the one answer, is asked for; None where nothing is."""
    if not isinstance(body, dict):
        return None
    messages = body.get("messages")
    if isinstance(messages, list):
        return [msgspec.json.encode(messages).decode()]
    given = next((body[name] for name in _INPUTS if name in body), None)
    if isinstance(given, dict):  # texts to compare, in text-embeddings-inference's words
        compared = given.get("sentences")
        given = [given.get("source_sentence"), *compared] if isinstance(compared, list) else None
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        return None
    if given and all(isinstance(one, int) for one in given):
        return [given]
    return [one.get("text") if isinstance(one, dict) else one for one in given]


def _query_of(body: Any) -> str | None:
    """Return the query of a rerank request, and None of any other."""
    if not isinstance(body, dict) or not ("documents" in body or "texts" in body):
        return None
    query = body.get("query")
    return query if isinstance(query, str) else None
