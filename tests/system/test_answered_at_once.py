"""A repeat that comes whole is answered where it is parsed, exactly as it is answered otherwise."""

import json

import pytest
from raw_http import Connection

from cacheproxy.api.access.key_ring import hash_key

TEXT = "How do I reset the password of my account?"
BODY = json.dumps({"model": "all-MiniLM-L6-v2", "input": TEXT}).encode()


def request(*lines: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    head = [b"POST /v1/embeddings HTTP/" + version, b"Host: x", *lines]
    return b"\r\n".join((*head, b"Content-Length: %d" % len(body), b"", body))


def asked(url: str, *parts: bytes, pause_s: float = 0.0):
    """Return the answer to a request that is sent in these parts, on a connection of its own."""
    with Connection(url) as connection:
        return connection.send(*parts, pause_s=pause_s).read()


@pytest.fixture(scope="module", autouse=True)
def remembered(server):
    """Have the request remembered by its bytes, and its entry in the hot tier."""
    for _ in range(3):
        asked(server.url, request())


def without_times(headers: dict[str, str]) -> dict[str, str]:
    changing = ("date", "server-timing", "age", "cache-status")
    kept = {name: value for name, value in headers.items() if name not in changing}
    return kept | {"names": " ".join(sorted(headers)), "tier": headers["cache-status"][-3:]}


def test_a_request_in_one_part_and_in_several_get_the_same_answer_and_are_counted_alike(server):
    whole = request()
    before = [server.metric("requests_total", route="embeddings", status="200")]

    answers = [
        asked(server.url, whole),
        asked(server.url, whole[: -len(BODY)], BODY, pause_s=0.001),
        asked(server.url, whole[:-5], whole[-5:], pause_s=0.1),
        asked(server.url, whole[:30], whole[30:70], whole[70:], pause_s=0.1),
    ]

    before.append(server.metric("requests_total", route="embeddings", status="200"))
    assert before[1] - before[0] == 4
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].headers["cache-status"].endswith("detail=hot")
    heads = [without_times(answer.headers) for answer in answers]
    assert all(head == heads[0] for head in heads)


def test_every_hit_is_counted_in_its_tier_and_its_time_is_observed(server):
    names = ("lookups_total", "request_duration_seconds_count")
    labels = ({"tier": "hot", "result": "hit"}, {"route": "embeddings", "outcome": "hot"})
    before = [server.metric(name, **each) for name, each in zip(names, labels, strict=True)]

    with Connection(server.url) as connection:
        for _ in range(10):
            connection.send(request()).read()

    after = [server.metric(name, **each) for name, each in zip(names, labels, strict=True)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [10, 10]


def test_pipelined_repeats_and_new_texts_are_answered_in_their_order(server):
    texts = [TEXT, "A new text", TEXT, TEXT, "Another new text", TEXT]
    bodies = [json.dumps({"model": "all-MiniLM-L6-v2", "input": text}).encode() for text in texts]

    with Connection(server.url) as connection:
        connection.send(b"".join(request(body=body) for body in bodies))
        answers = [connection.read() for _ in bodies]

    assert [answer.status for answer in answers] == [200] * len(texts)
    vectors = [json.loads(answer.body)["data"][0]["embedding"] for answer in answers]
    expected = [
        json.loads(asked(server.url, request(body=body)).body)["data"][0]["embedding"]
        for body in bodies
    ]
    assert vectors == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"Connection: close", ("connection", "close")),
        (b"X-Request-Id: mine", ("x-request-id", "mine")),
        (b"Cache-Control: no-cache", ("cache-status", "fwd=request")),
    ],
    ids=["a connection to close", "a request id", "control of the cache"],
)
def test_what_a_request_asks_for_beside_the_answer_is_done(server, line, told):
    answer = asked(server.url, request(line))

    assert answer.status == 200
    name, value = told
    assert value in answer.headers[name]


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        (request(b"Host: y"), 400, "Host"),
        (request(b"Content-Encoding: gzip"), 415, "compressed"),
        (request().replace(b"Host: x\r\n", b""), 400, "Host"),
        (request().replace(b"POST", b"PUT"), 405, "not allowed"),
        (request(b"X-Cacheproxy-TTL: soon"), 400, "X-Cacheproxy-TTL"),
        (request(b"X-Cacheproxy-Namespace: \xff"), 400, "X-Cacheproxy-Namespace"),
    ],
    ids=["two hosts", "a compressed body", "no host", "PUT", "a wrong time", "a wrong namespace"],
)
def test_what_is_refused_otherwise_is_refused(server, given, status, message):
    answer = asked(server.url, given)

    assert answer.status == status
    assert message in json.loads(answer.body)["error"]["message"]
    assert "x-request-id" in answer.headers


def test_an_expected_100_is_sent_and_then_the_answer(server):
    whole = request(b"Expect: 100-continue")
    head, body = whole[: -len(BODY)], whole[-len(BODY) :]

    with Connection(server.url) as connection:
        assert connection.send(head).read().status == 100
        answer = connection.send(body).read()

    assert answer.headers["cache-status"].endswith("detail=hot")


def test_an_old_client_gets_an_answer_and_the_end_of_the_connection(server):
    with Connection(server.url) as connection:
        (answer,) = connection.send(request(version=b"1.0")).read_all()

    assert answer.status == 200


def test_a_broken_request_behind_a_repeat_is_refused_after_its_answer(server):
    with Connection(server.url) as connection:
        answers = connection.send(request() + b"no HTTP at all\r\n\r\n").read_all()

    assert [answer.status for answer in answers] == [200, 400]


def test_chunks_that_are_malformed_end_a_request_that_might_have_been_a_repeat(server):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)

    assert asked(server.url, head + chunk + b"0\r\n\r\n").status == 200
    with Connection(server.url) as connection:
        answers = connection.send(head + chunk + b"zz\r\n\r\n").read_all()
    assert [answer.status for answer in answers] == [400]


def test_another_namespace_is_not_answered_from_this_one(server):
    answer = asked(server.url, request(b"X-Cacheproxy-Namespace: elsewhere"))

    assert "fwd=miss" in answer.headers["cache-status"]


def test_a_key_that_is_wrong_or_lacks_a_scope_gets_no_remembered_answer(start_server, tmp_path):
    reader, purger = "cp-reader-" + "r" * 32, "cp-purger-" + "p" * 32
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        "[api_keys]\n"
        f'one = [{{ hash = "{hash_key(reader)}" }}, '
        f'{{ hash = "{hash_key(purger)}", scopes = ["purge"] }}]\n'
    )
    server = start_server("--config", str(config))

    for _ in range(3):
        answer = asked(server.url, request(b"Authorization: Bearer " + reader.encode()))
    assert answer.headers["cache-status"].endswith("detail=hot")
    assert asked(server.url, request()).status == 401
    assert asked(server.url, request(b"Authorization: Bearer wrong")).status == 401
    bearer = b"Authorization: Bearer " + purger.encode()
    assert asked(server.url, request(bearer)).status == 403


def test_a_purged_entry_is_not_served_from_memory(start_server):
    server = start_server("--admin-port", "0")
    for _ in range(3):
        asked(server.url, request())
    assert asked(server.url, request()).headers["cache-status"].endswith("detail=hot")

    order = {"tenant": "default", "namespace": "default", "all": True}
    assert server.admin.post("/admin/purge", json=order).json() == {"removed": 1}

    assert "fwd=miss" in asked(server.url, request()).headers["cache-status"]


def test_a_server_that_is_leaving_closes_the_connection_with_its_answer(start_server):
    server = start_server("--drain-s", "5")
    for _ in range(3):
        asked(server.url, request())

    with Connection(server.url) as connection:
        connection.send(request()).read()
        server.process.terminate()
        answers = []
        while not answers or answers[-1].headers.get("connection") != "close":
            answers.append(connection.send(request()).read())

    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["cache-status"].endswith("detail=hot")


def test_a_request_whose_body_is_still_coming_is_finished_when_the_server_leaves(start_server):
    server = start_server("--drain-s", "0")
    for _ in range(3):
        asked(server.url, request())
    whole = request()

    with Connection(server.url) as connection:
        connection.send(whole[:-5])
        server.process.terminate()
        answer = connection.send(whole[-5:]).read()

    assert answer.status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_completion_is_the_same_at_once_and_otherwise(chat, stream):
    body = {
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "What is asked again and again?"}],
        "stream": stream,
    }

    def answer(**headers: str):
        return chat.http.post("/v1/chat/completions", json=body, headers=headers)

    for _ in range(3):
        answer()
    at_once, otherwise = answer(), answer(**{"Cache-Control": "max-age=100000"})

    assert "content-length" in at_once.headers
    assert at_once.headers["cache-status"].endswith("detail=hot")
    assert otherwise.headers["cache-status"].endswith("detail=hot")
    assert at_once.headers["content-type"] == otherwise.headers["content-type"]
    assert at_once.headers["x-cacheproxy-entry"] == otherwise.headers["x-cacheproxy-entry"]
    assert at_once.content == otherwise.content
