"""Without a hot tier, a repeat is looked up before its request is read, and counted as it was."""

import json

import pytest
from raw_http import Connection

TEXT = "How do I change the address of my invoices?"
COUNTED = (
    ("requests_total", {"route": "embeddings", "status": "200"}),
    ("lookups_total", {"tier": "hot", "result": "miss"}),
    ("lookups_total", {"tier": "exact", "result": "hit"}),
    ("lookups_total", {"tier": "exact", "result": "miss"}),
    ("request_duration_seconds_count", {"route": "embeddings", "outcome": "exact"}),
    ("stage_duration_seconds_count", {"stage": "exact"}),
)


def request(*lines: bytes, text: str = TEXT) -> bytes:
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": text}).encode()
    head = [b"POST /v1/embeddings HTTP/1.1", b"Host: x", *lines]
    return b"\r\n".join((*head, b"Content-Length: %d" % len(body), b"", body))


def asked(url: str, *lines: bytes):
    with Connection(url) as connection:
        return connection.send(request(*lines)).read()


@pytest.fixture
def cold(start_server):
    """A server without a hot tier that remembers the request by its bytes."""
    server = start_server("--cache-hot-bytes", "0", "--admin-port", "0")
    while "detail=exact" not in asked(server.url).headers["cache-status"]:
        pass  # the entry is written in the background
    return server


def counts(server) -> list[float]:
    return [server.metric(name, **labels) for name, labels in COUNTED]


def test_a_repeat_is_answered_and_counted_as_the_same_request_is_otherwise(cold):
    given = []
    for line in ((), (b"X-Cacheproxy-Semantic: on", b"Cache-Control: max-age=100000")):
        before = counts(cold)
        given.append((asked(cold.url, *line), before, counts(cold)))

    (again, *around), (otherwise, *otherwise_around) = given
    assert again.headers["cache-status"].endswith("detail=exact")
    assert (again.status, again.body) == (otherwise.status, otherwise.body)
    assert again.headers.keys() == otherwise.headers.keys()
    grown = [[b - a for a, b in zip(*both, strict=True)] for both in (around, otherwise_around)]
    assert grown[0] == grown[1] == [1, 1, 1, 0, 1, 1]


def test_pipelined_repeats_and_new_texts_are_answered_in_their_order(cold):
    texts = [TEXT, "A text of today", TEXT, TEXT, "Another text of today"]
    with Connection(cold.url) as connection:
        connection.send(b"".join(request(text=text) for text in texts))
        answers = [connection.read() for _ in texts]

    vectors = [json.loads(answer.body)["data"][0]["embedding"] for answer in answers]
    assert vectors[0] == vectors[2] == vectors[3]
    assert len({str(vector) for vector in vectors}) == 3


def test_a_repeat_whose_entry_is_gone_is_looked_up_once_and_inferred(cold):
    order = {"tenant": "default", "namespace": "default", "all": True}
    assert cold.admin.post("/admin/purge", json=order).json() == {"removed": 1}
    before = counts(cold)

    answer = asked(cold.url)

    assert "fwd=miss" in answer.headers["cache-status"]
    assert "exact;dur=" in answer.headers["server-timing"]
    grown = [b - a for a, b in zip(before, counts(cold), strict=True)]
    assert grown == [1, 1, 0, 1, 0, 1]
