"""Two servers on one store: what one of them purges or replaces, the other does not serve."""

import json
import statistics
import time

import pytest
from asking import ask, heat, is_cached, run, wait_until


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.sqlite'}"
    return request.getfixturevalue("start_redis")().url


@pytest.fixture
def pair(start_server, store_url):
    """Two servers on one store, each with an admin listener."""
    return [start_server("--admin-port", "0", store=store_url) for _ in range(2)]


def purge(server, **target):
    order = {"tenant": "default", "namespace": "default", **target}
    answer = server.admin.post("/admin/purge", json=order)
    assert answer.status_code == 200, answer.text
    return answer.json()["removed"]


def test_what_one_server_purges_the_other_has_forgotten_within_100_ms(pair):
    one, other = pair
    text = "it will be purged"
    delays_s = []
    for target in 3 * [{"text": text}, {"tag": "docs"}, {"all": True}]:
        heat(one, text, x_cacheproxy_tags="docs")
        heat(other, text, x_cacheproxy_tags="docs")
        assert purge(one, **target) == 1
        purged_at = time.monotonic()
        assert not is_cached(one, text)
        wait_until(lambda: not is_cached(other, text))
        delays_s.append(time.monotonic() - purged_at)
    # A machine that is busy with other tests may be late now and then, and is not every time.
    assert statistics.median(delays_s) < 0.1


def test_a_refreshed_entry_replaces_that_in_the_other_servers_hot_tier(pair):
    one, other = pair
    heat(one, "it will be refreshed")
    heat(other, "it will be refreshed")
    assert "fwd=request" in ask(one, "it will be refreshed", cache_control="no-cache")
    wait_until(lambda: "detail=exact" in ask(other, "it will be refreshed"))
    assert "detail=hot" in ask(one, "it will be refreshed")


def test_the_command_line_purges_what_servers_hold(pair, model_home, store_url):
    one, other = pair
    heat(one, "one of them")
    heat(other, "another")
    place = ("--home", str(model_home), "--store", store_url)
    stats = json.loads(run("stats", *place, "--json").stdout)
    assert stats["store"]["entries"] == 2
    assert stats["store"]["namespaces"][0]["tenant"] == "default"

    done = run("purge", *place, "--namespace", "default", "--text", "One  of THEM")
    assert (done.returncode, done.stdout) == (0, "entries removed: 1\n"), done.stderr
    wait_until(lambda: not is_cached(one, "one of them"))
    assert is_cached(other, "another")

    elsewhere = run("purge", *place, "--namespace", "default", "--tenant", "other", "--all")
    assert elsewhere.stdout == "entries removed: 0\n"
    done = run("purge", *place, "--namespace", "default", "--all")
    assert done.stdout == "entries removed: 1\n", done.stderr
    wait_until(lambda: not is_cached(other, "another"))
    for mistaken in ((), ("--all", "--tag", "docs"), ("--key", "no hex")):
        failed = run("purge", *place, "--namespace", "default", *mistaken)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert len(failed.stderr.splitlines()) == 1


def test_missed_announcements_are_reported_and_empty_the_hot_tier(start_redis, start_server):
    redis = start_redis()
    server = start_server(store=redis.url)
    heat(server, "it is in the hot tier")
    assert server.metric("purges_heard") == 1
    redis.kill()
    wait_until(lambda: server.metric("purges_heard") == 0)
    assert "detail=hot" in ask(server, "it is in the hot tier")
    redis.start()
    wait_until(lambda: server.metric("purges_heard") == 1)
    assert "fwd=miss" in ask(server, "it is in the hot tier")
