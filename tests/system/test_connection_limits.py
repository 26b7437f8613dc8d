"""What one connection, or many, can make the server hold, for how long, without any API key."""

import json
import threading
import time

import pytest
from raw_http import GET, Connection, resident_mb

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
LINE = b"X-A: " + b"a" * 1_000_000 + b"\r\n"

HOSTILE_HEADS = {
    "a header line of 1 MB": (GET[:-2] + LINE, 431),
    "a header line without end": (GET[:-2] + b"X-A: " + b"a" * 10**6, 431),
    "a header name without end": (GET[:-2] + b"a" * 10**6, 431),
    "10,000 short header lines": (GET[:-2] + b"a:b\r\n" * 10_000 + b"\r\n", 431),
    "101 header lines": (GET[:-2] + b"a:b\r\n" * 100 + b"\r\n", 431),
    "a URL without end": (b"GET /" + b"a" * 10**6, 414),
    "a long query": (b"GET /healthz?" + b"a" * 8_192 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a trailer of 1 MB": (CHUNKED + b"0\r\n" + LINE + b"\r\n", 431),
    "a trailer line without end": (CHUNKED + b"0\r\nX-A: " + b"a" * 10**6, 431),
    "10,000 trailer lines": (CHUNKED + b"0\r\n" + b"a:b\r\n" * 10_000, 431),
    "a chunk extension without end": (CHUNKED + b"2;a=" + b"a" * 10**6, 431),
}


@pytest.fixture(scope="module")
def quick(model_home):
    """A server whose patience is short."""
    from server_process import Server

    flags = ("--limits-head-timeout-s", "0.5", "--limits-keep-alive-s", "1")
    server = Server(model_home, "memory://", "--drain-s", "0", *flags)
    yield server
    assert server.stop() == 0, server.log


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [10**7, 4_000])
@pytest.mark.parametrize(("sent", "status"), HOSTILE_HEADS.values(), ids=HOSTILE_HEADS.keys())
def test_a_head_or_trailer_beyond_the_limits_is_refused(server, sent, status, size):
    before = server.metric("shed_total", reason="head")
    with Connection(server.url) as connection:
        answers = connection.send(*pieces(sent, size)).read_all()

    assert [answer.status for answer in answers] in ([status], [400, status])
    assert answers[-1].headers["connection"] == "close"
    assert json.loads(answers[-1].body)["error"]["type"] == "invalid_request_error"
    assert server.metric("shed_total", reason="head") == before + 1


def test_a_connection_that_is_used_is_kept_and_an_idle_one_closed(quick):
    with Connection(quick.url) as connection:
        for _ in range(4):
            assert connection.send(GET).read().status == 200
            time.sleep(0.6)  # less than it may be idle; all together more
        connection.send(GET).read()
        started = time.monotonic()
        assert connection.read_all() == []
        assert 0.9 < time.monotonic() - started < 10


def test_a_head_within_the_limits_is_served(server):
    lines = b"".join(b"X-%d: %b\r\n" % (i, b"a" * 300) for i in range(98))
    with Connection(server.url) as connection:
        assert connection.send(GET[:-2] + lines + b"\r\n").read().status == 200


def test_trailers_are_no_headers(server):
    with Connection(server.url) as connection:
        answer = connection.send(CHUNKED + b"0\r\nContent-Encoding: gzip\r\n\r\n").read()

    assert answer.status == 400  # and not 415, by which a compressed body is refused


def test_heads_that_never_end_take_no_memory(server):
    before = resident_mb(server.process.pid)
    connections = [Connection(server.url) for _ in range(40)]
    for connection in connections:
        connection.send(GET[:-2] + LINE * 4)

    grown = resident_mb(server.process.pid) - before
    for connection in connections:
        connection.socket.close()
    assert grown < 40  # of 160 MB that were sent


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [(b"GET /he", [408]), (GET[:-2], [408]), (b"\r\n", []), (GET + b"GET /", [200, 408])],
)
def test_a_head_that_does_not_end_is_given_up(quick, sent, statuses):
    with Connection(quick.url) as connection:
        answers = connection.send(sent).read_all()

    assert [answer.status for answer in answers] == statuses


def test_a_head_that_comes_drop_by_drop_is_given_up(quick):
    with Connection(quick.url) as connection:
        connection.send(*pieces(GET * 4, 1)[: len(GET) - 1], pause_s=0.03)

        assert [answer.status for answer in connection.read_all()] == [408]
    assert quick.metric("shed_total", reason="slow_head") >= 1


def test_connections_that_say_nothing_are_closed(quick):
    with Connection(quick.url) as silent, Connection(quick.url) as kept:
        assert kept.send(GET).read().status == 200
        assert silent.read() is None
        assert kept.read() is None


def test_connections_beyond_their_limit_are_refused_and_others_served(start_server):
    server = start_server("--limits-connections", "3", "--limits-keep-alive-s", "60")
    held = [Connection(server.url) for _ in range(3)]
    assert all(one.send(GET).read().status == 200 for one in held)

    with Connection(server.url) as refused:
        answer = refused.send(GET).read()
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert json.loads(answer.body)["error"]["code"] == "too_many_connections"
    assert held[0].send(GET).read().status == 200
    for one in held:
        one.socket.close()
    deadline = time.monotonic() + 30
    while (answer := Connection(server.url).send(GET).read()) is None or answer.status != 200:
        assert time.monotonic() < deadline
    assert server.metric("shed_total", reason="connections") >= 1


BIG = b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * 4_000_000


def send_bodies(url: str, number: int, sent: bytes = BIG) -> list[Connection]:
    """Send the beginning of a chat body on each of so many connections, at the same time."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4200000\r\n\r\n"
    connections = [Connection(url) for _ in range(number)]
    threads = [threading.Thread(target=one.send, args=(head + sent,)) for one in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return connections


def test_bodies_have_a_budget_and_leave_no_memory_behind(start_server, upstream):
    server = start_server(
        *("--upstream", upstream.url, "--limits-body-timeout-s", "3"),
        *("--limits-all-bodies-bytes", "17000000", "--limits-caller-bodies-bytes", "17000000"),
    )
    pid = server.process.pid
    server.client().embeddings.create(input="warm", model="all-MiniLM-L6-v2")
    before = resident_mb(pid)
    for _ in range(2):
        connections = send_bodies(server.url, 40)
        assert resident_mb(pid) - before < 80  # of 160 MB that were sent
        answers = [connection.read_all() for connection in connections]
        statuses = [answer.status for (answer,) in answers]
        assert (statuses.count(408), statuses.count(503)) == (4, 36)
        refused = next(answer for (answer,) in answers if answer.status == 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert json.loads(refused.body)["error"]["code"] == "bodies_full"

    deadline = time.monotonic() + 60
    while resident_mb(pid) > 1.1 * before:
        assert time.monotonic() < deadline, f"{before} MB before, {resident_mb(pid)} MB now"
        time.sleep(0.5)
    assert server.metric("shed_total", reason="bodies") == 72
    chat = server.client().chat.completions.create(
        model="m", messages=[{"role": "user", "content": "a" * 200_000}]
    )
    assert chat.choices  # the budget is free again


def test_one_tenant_s_bodies_leave_room_for_another_s(start_server, upstream, tmp_path):
    from cacheproxy.api.access.key_ring import hash_key

    config = tmp_path / "keys.toml"
    config.write_text(f'[api_keys]\na = ["{hash_key("ka")}"]\nb = ["{hash_key("kb")}"]\n')
    server = start_server(
        *("--config", str(config), "--upstream", upstream.url, "--limits-body-timeout-s", "30"),
        *("--limits-all-bodies-bytes", "9000000", "--limits-caller-bodies-bytes", "5000000"),
    )

    def head(key: bytes) -> bytes:
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: 4000000\r\n\r\n" % key
        )

    with Connection(server.url) as first, Connection(server.url) as second:
        first.send(head(b"ka"))
        assert second.send(head(b"ka")).read().status == 503
        body = BIG[:3_999_997] + b'"}]}'
        with Connection(server.url) as other:
            assert other.send(head(b"kb") + body[:4_000_000]).read().status != 503


def test_a_body_that_is_larger_than_the_budget_is_too_large(start_server, upstream):
    server = start_server(
        "--upstream", upstream.url, "--limits-caller-bodies-bytes", str(2 * 2**20)
    )
    (connection,) = send_bodies(server.url, 1, b"{")

    assert connection.read().status == 413


def test_a_connection_goes_on_after_a_body_that_was_too_large(server):
    with Connection(server.url) as connection:
        connection.send(HEAD + b"Content-Length: 3000000\r\n\r\n" + b"a" * 3_000_000 + GET)

        assert [connection.read().status, connection.read().status] == [413, 200]
