"""Several workers behind one port: one cache, one set of metrics, one life."""

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from server_process import TRUSTS_NOBODY, Server, sum_of

from cacheproxy.records import unpack
from cacheproxy.stores.redis.entries import RECORD_FIELD, entry_key, read_stored
from cacheproxy.stores.redis.index import ENTRY_PREFIX

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def ask(http_client: httpx.Client, text, headers=None) -> httpx.Response:
    body = {"input": text, "model": MODEL}
    return http_client.post("/v1/embeddings", json=body, headers=headers)


def ask_on_new_connection(server: Server, text, headers=None) -> httpx.Response:
    with httpx.Client(base_url=server.url, timeout=60, verify=TRUSTS_NOBODY) as client:
        return ask(client, text, headers)


def runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def is_back(server: Server, workers: int, restarts: int) -> bool:
    try:
        found = server.metric("workers"), server.metric("worker_restarts_total")
    except httpx.TransportError:  # the connection was to the worker that is gone
        return False
    return found == (workers, restarts)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def three(request, model_home, tmp_path_factory) -> Iterator[Server]:
    """A server of three workers on a store that they share, for one test after another."""
    if request.param == "sqlite":
        store = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'shared.sqlite'}"
    else:
        store = request.getfixturevalue("breakable_redis").url
    flags = ("--drain-s", "0", "--workers", "3", "--admin-port", "0")
    server = Server(model_home, store, *flags)
    yield server
    assert server.stop() == 0, server.log


def growth_of(server: Server) -> Callable[..., float]:
    """Return a function that tells how much a metric has grown since now."""
    before = server.http.get("/metrics").text
    return lambda name, **labels: server.metric(name, **labels) - sum_of(before, name, **labels)


def test_what_one_worker_computed_all_have(three):
    grown = growth_of(three)
    ask_on_new_connection(three, "computed once")
    wait_until(lambda: grown("writeback_stored_total") == 1)

    vectors = set()
    for _ in range(60):  # each worker is all but sure to be among those who answer
        response = ask_on_new_connection(three, "computed once")
        assert "hit" in response.headers["cache-status"]
        vectors.add(json.dumps(response.json()["data"][0]["embedding"]))

    assert len(vectors) == 1
    assert grown("batch_texts_sum") == 1
    assert grown("hot_entries") == 3  # one in each worker


def test_what_is_purged_by_way_of_one_worker_none_has(three):
    grown, place = growth_of(three), {"x-cacheproxy-namespace": "purged"}
    ask_on_new_connection(three, "to be purged", place)
    wait_until(lambda: grown("writeback_stored_total") == 1)
    for _ in range(60):
        response = ask_on_new_connection(three, "to be purged", place)
        assert "hit" in response.headers["cache-status"]
    assert grown("hot_entries") == 3

    order = {"tenant": "default", "namespace": "purged", "all": True}
    assert three.admin.post("/admin/purge", json=order).json() == {"removed": 1}

    cached = {"cache-control": "only-if-cached", **place}
    again = lambda: ask_on_new_connection(three, "to be purged", cached).status_code  # noqa: E731
    wait_until(lambda: {again() for _ in range(60)} == {504})


def test_every_scrape_adds_up_what_all_workers_counted(three):
    grown = growth_of(three)
    answered = 0
    lock = threading.Lock()

    def client(number: int) -> None:
        nonlocal answered
        for turn in range(10):
            assert ask_on_new_connection(three, f"text {turn} of {number % 5}").status_code == 200
            with lock:
                answered += 1

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client, number) for number in range(30)]
        seen = [0.0]
        while not all(one.done() for one in clients):
            with lock:
                at_least = answered
            seen.append(grown("requests_total", status="200"))
            assert seen[-1] >= at_least
        for one in clients:
            one.result()

    assert seen == sorted(seen)
    assert grown("requests_total", status="200") == 300
    assert grown("request_duration_seconds_count", route="embeddings") == 300
    # What another request finishes meanwhile is found at a second look.
    assert 300 <= grown("lookups_total", tier="hot") <= 330
    assert three.metric("workers") == 3


class Held:
    """A connection that is kept, never made anew, and of which it can be told who serves it."""

    def __init__(self, server: Server) -> None:
        address = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        self._connection.connect()
        self._connection.auto_open = 0
        self.port = self._connection.sock.getsockname()[1]

    def answers(self) -> bool:
        body = json.dumps({"input": "held", "model": MODEL})
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/v1/embeddings", body, headers)
        response = self._connection.getresponse()
        response.read()
        return response.status == 200

    def scrape(self) -> str:
        self._connection.request("GET", "/metrics")
        return self._connection.getresponse().read().decode()


def clients_of(pid: int) -> set[int]:
    """Return the ports of the clients that are connected to a process."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in links}


def test_a_killed_worker_is_replaced_and_no_counter_decreases(start_server):
    server = start_server("--workers", "2")
    held = [Held(server) for _ in range(40)]
    assert all(one.answers() for one in held)
    assert server.metric("requests_total", status="200") == 40
    victim, other = server.worker_pids()
    unharmed = [one for one in held if one.port in clients_of(other)]
    assert 0 < len(unharmed) < 40

    os.kill(victim, signal.SIGKILL)
    assert all(one.answers() for one in unharmed)
    wait_until(lambda: is_back(server, workers=2, restarts=1))

    assert server.metric("requests_total", status="200") == 40 + len(unharmed)
    assert victim not in server.worker_pids()
    for _ in range(20):
        assert ask_on_new_connection(server, "held").status_code == 200
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0


def test_a_worker_that_does_not_answer_holds_no_scrape_up_and_counts_as_before(start_server):
    server = start_server("--workers", "2")
    held = [Held(server) for _ in range(40)]
    assert all(one.answers() for one in held)
    assert server.metric("requests_total", status="200") == 40
    frozen, other = server.worker_pids()
    scraper = next(one for one in held if one.port in clients_of(other))

    os.kill(frozen, signal.SIGSTOP)
    scraped = scraper.scrape()
    os.kill(frozen, signal.SIGCONT)

    assert sum_of(scraped, "requests_total", status="200") == 40
    assert sum_of(scraped, "workers") == 2


def test_a_worker_that_hangs_is_replaced_and_the_others_are_unharmed(start_server):
    server = start_server("--workers", "2")
    held = [Held(server) for _ in range(20)]
    assert all(one.answers() for one in held)
    frozen, other = server.worker_pids()
    unharmed = [one for one in held if one.port in clients_of(other)]
    assert unharmed
    os.kill(frozen, signal.SIGSTOP)

    # Only over connections that the other one has: new ones may be the frozen one's.
    restarts = lambda: sum_of(unharmed[0].scrape(), "worker_restarts_total")  # noqa: E731
    wait_until(lambda: all(one.answers() for one in unharmed) and restarts() == 1)

    wait_until(lambda: is_back(server, workers=2, restarts=1))
    assert not runs(frozen)
    assert f"worker {frozen} does not answer; killing it" in server.log
    for _ in range(20):
        assert ask_on_new_connection(server, "held").status_code == 200


def test_requests_are_served_while_the_supervisor_does_not_answer_and_scrapes_fail(start_server):
    server = start_server("--workers", "2")
    server.process.send_signal(signal.SIGSTOP)
    served, scraped = ask_on_new_connection(server, "served"), server.http.get("/metrics")
    server.process.send_signal(signal.SIGCONT)

    assert served.status_code == 200
    assert scraped.status_code == 503
    assert server.metric("requests_total", status="200") == 1


def test_a_stopped_worker_finishes_its_requests_and_is_replaced_without_losing_counts(
    start_server,
):
    server = start_server("--workers", "2")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(ask_on_new_connection, server, ["word " * 200] * 100)
        for number in range(20):
            assert ask_on_new_connection(server, f"short {number}").status_code == 200
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: not runs(pid))
        assert in_flight.result().status_code == 200
    wait_until(lambda: is_back(server, workers=2, restarts=2))

    assert server.metric("requests_total", status="200") == 21


def test_sigterm_under_load_answers_all_that_was_asked_and_stores_it(start_server):
    server = start_server("--workers", "2", "--drain-s", "3")
    enough = threading.Event()
    long_texts = [f"text {i} " + "word " * 240 for i in range(60)]

    def client(number: int) -> list[int]:
        statuses = []
        with httpx.Client(base_url=server.url, verify=TRUSTS_NOBODY, timeout=60) as http_client:
            while not enough.is_set():
                statuses.append(ask(http_client, f"{number} {len(statuses)}").status_code)
        return statuses

    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        clients = [pool.submit(client, number) for number in range(6)]
        in_flight = pool.submit(ask_on_new_connection, server, long_texts)
        try:
            wait_until(lambda: server.metric("requests_total", status="200") > 50)
            server.process.send_signal(signal.SIGTERM)
            ready = f"{server.url}/readyz"
            wait_until(lambda: httpx.get(ready, verify=TRUSTS_NOBODY).status_code == 503)
        finally:
            enough.set()
        statuses = [status for one in clients for status in one.result()]
        assert in_flight.result().status_code == 200
    assert set(statuses) == {200}
    assert server.process.wait(60) == 0

    server = start_server("--workers", "2", "--cache-deadline-ms", "10000")
    assert "hit" in ask_on_new_connection(server, long_texts).headers["cache-status"]


def test_kill_9_of_the_supervisor_leaves_no_worker_behind(start_server):
    server = start_server("--workers", "3")
    pids = server.worker_pids()
    assert len(pids) == 3
    assert all(runs(pid) for pid in pids)

    server.kill()

    wait_until(lambda: not any(runs(pid) for pid in pids))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")


def test_kill_9_of_workers_that_write_leaves_entries_whole_or_absent(start_redis, start_server):
    redis = start_redis()
    server = start_server("--workers", "2", store=redis.url)
    enough = threading.Event()

    def write(number: int) -> None:
        turn = 0
        while not enough.is_set():
            turn += 1
            try:
                ask_on_new_connection(server, [f"{number} {turn} {i}" for i in range(30)])
            except httpx.TransportError:
                continue

    with redis.client() as client:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write, number) for number in range(3)]
            try:
                for kills in range(3):
                    stored = client.dbsize()
                    wait_until(lambda stored=stored: client.dbsize() > stored + 200)
                    os.kill(server.worker_pids()[0], signal.SIGKILL)
                    wait_until(lambda kills=kills: is_back(server, workers=2, restarts=kills + 1))
            finally:
                enough.set()
            for writer in writers:
                writer.result()
        assert server.stop() == 0
        names = list(client.scan_iter(ENTRY_PREFIX + b"*", count=1000))
        assert len(names) > 600
        for name in names:
            record = read_stored(client.hget(name, RECORD_FIELD)).record
            namespace_id, key = record[4:20].hex(), entry_key(name)
            unpack(record, namespace_id=namespace_id, key=key, dimensions=DIMENSIONS)
            assert client.ttl(name) > 0


@pytest.mark.parametrize(
    "flags",
    [
        ("--workers", "2", "--store", "memory://"),
        ("--workers", "0"),
        ("--workers", "2", "--store", "sqlite:////proc/no/such/folder"),  # told by a worker
    ],
)
def test_an_unsupported_number_of_workers_is_reported_in_one_line_with_exit_code_2(
    model_home, flags
):
    refused = serve("--port", "0", "--home", str(model_home), *flags)

    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr


def test_a_port_in_use_by_workers_is_reported_in_one_line_with_exit_code_2(
    start_server, model_home
):
    port = start_server("--workers", "2").url.rsplit(":", 1)[1]

    for workers in ("1", "2"):
        refused = serve("--port", port, "--home", str(model_home), "--workers", workers)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1
        assert port in refused.stderr


def serve(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "cacheproxy", "serve", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_worker_that_cannot_be_replaced_is_tried_again_while_the_others_serve(
    model_home, tmp_path
):
    shutil.copytree(model_home / "models", tmp_path / "models")
    graph = tmp_path / "models" / MODEL / "model.onnx"
    server = Server(tmp_path, f"sqlite:///{tmp_path / 'cache.sqlite'}", "--workers", "2")
    away = graph.rename(tmp_path / "away")

    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: re.search(r"model\.onnx.*another worker starts", server.log))
    assert ask_on_new_connection(server, "still served").status_code == 200
    assert server.metric("workers") == 1
    away.rename(graph)

    wait_until(lambda: server.metric("workers") == 2)
    assert server.stop() == 0
