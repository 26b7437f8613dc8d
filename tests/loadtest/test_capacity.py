"""Reckoned hit rates are those of caches that are played through; the command tells them."""

import json
import math
from collections import OrderedDict

import numpy as np
import pytest
from click.testing import CliRunner
from redis import Redis

from loadtest.capacity.hits import Popularity, counted, reckon, zipf
from loadtest.capacity.plan import Costs, Wanted, plan
from loadtest.cli import main

TEXTS, EXPONENT, RATE, REQUESTS = 20_000, 0.9, 100.0, 300_000


def played(policy: str, room: float, ttl_s: float, unseen: float) -> float:
    """Return the hit rate of a cache over made-up requests, once it is warm."""
    random = np.random.default_rng(1)
    upto = np.cumsum(np.arange(1, TEXTS + 1) ** -EXPONENT)
    drawn = np.searchsorted(upto, random.random(REQUESTS) * upto[-1])
    times = np.cumsum(random.exponential(1 / RATE, REQUESTS))
    drawn = np.where(random.random(REQUESTS) < unseen, TEXTS + np.arange(REQUESTS), drawn)
    held: OrderedDict[int, float] = OrderedDict()
    hits = 0
    for place, (name, now) in enumerate(zip(drawn.tolist(), times.tolist(), strict=True)):
        if held.get(name, -math.inf) + ttl_s > now:
            hits += place >= REQUESTS / 2
            if policy == "lru":
                held.move_to_end(name)
            continue
        held[name] = now
        held.move_to_end(name)
        if len(held) > room:
            held.popitem(last=False)
    return hits / (REQUESTS / 2)


@pytest.mark.parametrize("unseen", [0.0, 0.2])
@pytest.mark.parametrize(
    ("policy", "room", "ttl_s"),
    [("lru", 2_000, math.inf), ("fifo", 2_000, math.inf), ("fifo", math.inf, 60.0)],
)
def test_a_hit_rate_is_that_of_a_cache_that_is_played_through(policy, room, ttl_s, unseen):
    reckoned = reckon(zipf(TEXTS, EXPONENT, RATE, unseen), policy, room, ttl_s)
    assert reckoned.hit_rate == pytest.approx(played(policy, room, ttl_s, unseen), abs=0.01)
    if room < math.inf:
        assert reckoned.entries == pytest.approx(room, rel=1e-3)


def test_groups_of_texts_are_as_exact_as_each_by_itself():
    ranks = np.arange(1, 100_001, dtype=np.float64) ** -EXPONENT
    each = Popularity(RATE * ranks / ranks.sum(), np.ones(100_000))
    grouped = zipf(100_000, EXPONENT, RATE)
    assert grouped.texts.sum() == 100_000
    assert grouped.requests_per_s == pytest.approx(RATE)
    assert len(grouped.texts) < 2_000
    for room in (100, 10_000):
        exact = reckon(each, "lru", room, math.inf).hit_rate
        assert reckon(grouped, "lru", room, math.inf).hit_rate == pytest.approx(exact, abs=1e-3)


def test_counts_of_a_recording_are_rates():
    popularity = counted([3, 1, 1], seconds=10)
    assert popularity.requests_per_s == 0.5
    assert popularity.texts.tolist() == [2, 1]


def test_nodes_are_what_the_scarcest_thing_needs():
    wanted = Wanted(
        room=math.inf, hot_bytes=0, processes=1, ttl_s=math.inf,
        searched=1.0, found=0.0, replicas=1,
    )  # fmt: skip
    of_memory = plan(zipf(1_000, 1.0, 1.0), wanted, Costs(node_bytes=1e6, entry_bytes=4_000))
    assert (of_memory.nodes, of_memory.nodes_for_memory) == (4, 4)
    of_work = plan(zipf(1_000, 1.0, 1e5), wanted, Costs(lookup_us=10, busy=0.5))
    assert (of_work.nodes, of_work.nodes_for_work) == (2, 2)


def test_the_command_tells_what_a_recording_needs(tmp_path):
    lines = [
        {
            "at": 1_700_000_000.0 + n, "route": "embeddings", "namespace": "n",
            "hashes": [f"{n % 4}"], "characters": [10], "tokens": [3],
        }
        for n in range(40)
    ]  # fmt: skip
    path = tmp_path / "recording.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = CliRunner().invoke(main, ["capacity", "--recording", str(path), "--rate", "7"])
    assert told.exit_code == 0, told.output
    assert "4 texts again and again, 7 requests/s" in told.output
    assert "100.0% by key" in told.output
    refused = CliRunner().invoke(main, ["capacity", "--set", "no_such=1"])
    assert refused.exit_code == 2
    assert "there is no such figure" in refused.output


def test_the_parts_can_be_measured_on_an_empty_redis(redis_url):
    command = ["capacity", "--check", redis_url, "--texts", "500", "--seconds", "1"]
    with Redis.from_url(redis_url) as client:
        client.flushall()
        client.set("another's", "any")
        assert "empty" in CliRunner().invoke(main, command).output
        client.flushall()
        told = CliRunner().invoke(main, command)
        assert told.exit_code == 0, told.output
        assert told.output.count("measured") == 2
        assert client.dbsize() == 0
        assert client.config_get("maxmemory")["maxmemory"] == "0"
