"""Requests whose length two parties could read differently are refused, and nothing gets mixed up.

Behind another proxy, a request that this server and the proxy end at different places would let one
client speak for the next (request smuggling).
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_http import GET, Connection

POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

AMBIGUOUS = {
    "two different lengths": b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}",
    "two equal lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "a negative length": b"Content-Length: -2\r\n\r\n{}",
    "a hexadecimal length": b"Content-Length: 0x2\r\n\r\n{}",
    "an empty length": b"Content-Length:\r\n\r\n{}",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "a space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "a length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then gzip": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n",
    "a vertical tab before chunked": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"X-A: a\r\n Content-Length: 2\r\n\r\n{}",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"X-A: a\nContent-Length: 2\r\n\r\n{}",
    "a bare carriage return": b"X-A: a\rContent-Length: 2\r\n\r\n{}",
    "a null byte": b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "a line without a colon": b"X-A\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk length that is none": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a signed chunk length": b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk length with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk length beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\n%b2\r\n{}\r\n"
    % (b"f" * 20),
    "a chunk that ends too late": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends with a line feed": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n",
    "a chunk length that ends with a line feed": (
        b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n"
    ),
}

BROKEN = {
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "HTTP/2 without negotiation": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET /healthz HTTP/3.7\r\nHost: x\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "a space in the URL": b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "bytes of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_a_request_of_ambiguous_length_is_refused_and_nothing_after_it_is_read(server, rest):
    with Connection(server.url) as connection:
        answers = connection.send(POST + rest + SMUGGLED).read_all()

    assert [answer.status for answer in answers] == [400]
    assert answers[0].headers["connection"] == "close"
    assert json.loads(answers[0].body)["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_http_is_refused_and_the_connection_closed(server, sent):
    with Connection(server.url) as connection:
        answers = connection.send(sent + SMUGGLED).read_all()

    assert answers[0].status == 400
    assert set(json.loads(answers[0].body)) == {"error"}
    assert not any(b"cacheproxy_" in answer.body for answer in answers)


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0"])
def test_an_offer_to_change_the_protocol_is_declined_and_nothing_after_it_is_read(server, upgrade):
    head = GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n\r\n" % upgrade
    with Connection(server.url) as connection:
        answers = connection.send(head + SMUGGLED).read_all()

    assert [answer.status for answer in answers] == [200]
    assert answers[0].headers["connection"] == "close"


def test_a_refusal_does_not_overtake_the_answers_to_earlier_requests(server):
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": "word " * 200}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with Connection(server.url) as connection:
        answers = connection.send(request + GET + b"nonsense\r\n\r\n").read_all()

    assert [answer.status for answer in answers] == [200, 200, 400]
    assert answers[0].body.startswith(b'{"object":"list"')


def test_a_request_that_breaks_off_in_a_pipeline_does_not_disturb_the_one_before(server):
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": "text " * 200}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    broken = POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    with Connection(server.url) as connection:
        answers = connection.send(request + broken).read_all()

    assert [answer.status for answer in answers] == [200, 400]


def test_pipelined_requests_are_bounded(server):
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": "piped " * 200}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with Connection(server.url) as connection:
        answers = connection.send(request + GET * 5_000).read_all()

    assert [answer.status for answer in answers] == [200] * 65 + [503]


def chunked(body: bytes, sizes: list[int], extension: bytes) -> bytes:
    sent, rest = b"Transfer-Encoding: chunked\r\n\r\n", body
    for size in [*sizes, len(body)]:
        part, rest = rest[:size], rest[size:]
        if part:
            sent += b"%x%b\r\n%b\r\n" % (len(part), extension, part)
    return sent + b"0\r\n\r\n"


UNKNOWN = st.integers(0, 10**6).map(lambda i: json.dumps({"model": f"m{i}", "input": "x"}).encode())
FRAMED = st.one_of(
    UNKNOWN.map(lambda body: (b"Content-Length: %d\r\n\r\n%b" % (len(body), body), body)),
    st.builds(
        lambda body, sizes, extension: (chunked(body, sizes, extension), body),
        UNKNOWN,
        st.lists(st.integers(1, 9), max_size=6),
        st.sampled_from([b"", b";a=b", b';a="b;c"']),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAMED, min_size=1, max_size=6), st.lists(st.integers(1, 200), max_size=8))
def test_requests_get_their_own_answers_however_they_are_framed_and_cut(server, framed, cuts):
    sent = b"".join(POST + frame for frame, _ in framed)
    parts, rest = [], sent
    for cut in cuts:
        parts.append(rest[:cut])
        rest = rest[cut:]
    with Connection(server.url) as connection:
        connection.send(*parts, rest, pause_s=0.001)
        for _, body in framed:
            answer = connection.read()
            assert answer.status == 404
            assert f"'{json.loads(body)['model']}'" in json.loads(answer.body)["error"]["message"]
        connection.send(GET)
        assert connection.read().status == 200


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", POST, GET[:-2], POST + b"Content-Length: 9"]))
def test_no_bytes_stop_the_server(server, noise, start):
    with Connection(server.url) as connection:
        connection.send(start + noise)
    with Connection(server.url) as connection:
        assert connection.send(GET).read().status == 200
    assert "Traceback" not in server.log
