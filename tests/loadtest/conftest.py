"""What the benchmarks need."""

import os

import pytest
from debian_programs import need_program


@pytest.fixture
def wrk(monkeypatch) -> None:
    """Put wrk on the PATH, fetched from Debian where it is not installed."""
    program = need_program("wrk", "wrk", "usr/bin/wrk", with_depends=True)
    monkeypatch.setenv("PATH", f"{program.path.parent}{os.pathsep}{os.environ['PATH']}")
    if libraries := program.environment.get("LD_LIBRARY_PATH"):
        monkeypatch.setenv("LD_LIBRARY_PATH", libraries)


@pytest.fixture
def empty_redis_url(redis_url) -> str:
    """The shared Redis, emptied."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url
