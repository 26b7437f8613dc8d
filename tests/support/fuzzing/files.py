"""What operators hand over: settings, URLs of Redis, recordings, texts to evaluate on."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.traffic import read_texts
from cacheproxy.settings.sources import load_settings
from cacheproxy.stores.redis.url import ClusterNodes, make_pool
from loadtest.traffic.recording import plan_recording, seconds_of
from loadtest.traffic.target import Target

_MOST_REPLAYED = 10_000
_FOLDER = Path(tempfile.gettempdir())
_TARGET = Target("http://127.0.0.1:1", "m")


@contextmanager
def _file(data: bytes, suffix: str) -> Iterator[Path]:
    """A file with the bytes; a clear error of the block is what it promises."""
    path = _FOLDER / f"fuzzing-{os.getpid()}{suffix}"
    path.write_bytes(data)
    with suppress(ConfigError):
        yield path
    path.unlink()


def redis_url(data: bytes) -> None:
    """The URL of a store, after each scheme: it can be read, or a clear error."""
    rest = data.decode("utf-8", "replace")
    for scheme in ("redis", "rediss", "unix", "redis+sentinel"):
        with suppress(ConfigError):
            make_pool(f"{scheme}://{rest}")
    for scheme in ("redis+cluster", "rediss+cluster"):
        with suppress(ConfigError):
            ClusterNodes(f"{scheme}://{rest}")


def settings_file(data: bytes) -> None:
    """A settings file: settings, or a line for each mistake."""
    with _file(data, ".toml") as path:
        load_settings({}, path)


def recording(data: bytes) -> None:
    """A recording that the load tester replays: requests to send, or a clear error."""
    with _file(data, ".jsonl") as path:
        lengths = filter(bytes.isdigit, data.replace(b",", b" ").split())
        if sum(map(int, lengths)) < _MOST_REPLAYED:
            plan_recording(str(path), _TARGET, 1.0)
        seconds_of(str(path), 1.0)


def labelled_texts(data: bytes) -> None:
    """A file to evaluate on: texts and their labels, or a clear error."""
    with _file(data, ".texts") as path:
        texts = read_texts([path])
        assert texts.texts
        texts.joined_groups()
