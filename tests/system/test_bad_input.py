"""Bad input gets a clear, OpenAI-shaped answer, and harms nobody else."""

import json
import socket

import httpx
import openai
import pytest
from asking import wait_until

MODEL = "all-MiniLM-L6-v2"


def body(**fields) -> bytes:
    return json.dumps({"model": MODEL, "input": "x", **fields}).encode()


DEEP = b"[" * 200_000

CASES = {
    "an empty body": (b"", 400, "empty"),
    "broken JSON": (b'{"input": ', 400, "not valid JSON"),
    "trailing characters": (body() + b"x", 400, "not valid JSON"),
    "not an object": (b'["x"]', 400, "object"),
    "half a million nested brackets": (b"[" * 500_000, 413, "elements"),
    "two hundred thousand nested brackets": (DEEP, 400, "object"),
    "nested brackets in the input": (b'{"input":' + DEEP, 400, "input"),
    "nested brackets in an unknown field": (b'{"model":"m","x":' + DEEP, 400, "nested"),
    "nested objects in an unknown field": (b'{"x":' * 10**5, 400, "nested"),
    "more elements than are allowed": (b'{"input":[' + b"0," * 1_000_001, 413, "elements"),
    "more arrays than are allowed": (b'{"input":[' + b"[]," * 250_001, 413, "elements"),
    "bytes that are not UTF-8": (b'{"model":"m","input":"\xff"}', 400, "JSON"),
    "a lone surrogate": (b'{"model":"m","input":"\\ud800 and more"}', 400, "surrogate"),
    "NaN": (b'{"model":"m","input":NaN}', 400, "not valid JSON"),
    "an infinite dimension": (body()[:-1] + b',"dimensions":1e400}', 400, "dimensions"),
    "no input": (json.dumps({"model": MODEL}).encode(), 400, "input"),
    "no model": (b'{"input":"x"}', 400, "model"),
    "input null": (body(input=None), 400, "input"),
    "input a number": (body(input=7), 400, "input"),
    "input an object": (body(input={"a": 1}), 400, "input"),
    "a list with a null": (body(input=["x", None]), 400, "input"),
    "texts and ids mixed": (body(input=["x", 7]), 400, "mix"),
    "ids that are not whole": (body(input=[1.5]), 400, "input"),
    "ids that are booleans": (body(input=[True]), 400, "input"),
    "an empty list": (body(input=[]), 400, "empty"),
    "an empty string": (body(input=""), 400, "empty"),
    "an empty string in a list": (body(input=["x", ""]), 400, "input 1"),
    "an empty list of ids": (body(input=[[]]), 400, "empty"),
    "few ids that may be of any vocabulary": (body(input=[5, 30_522]), 400, "token ids"),
    "a negative id": (body(input=[[5], [-1]]), 400, "any text"),
    "an id beyond 64 bits": (body(input=[2**70]), 400, "any text"),
    "many ids of no vocabulary": (body(input=[101, 29_999] * 99), 400, "any text"),
    "too many inputs": (body(input=["x"] * 2_049), 422, "2049"),
    "too long a text": (body(input="x" * 32_769), 422, "32768"),
    "too large a body": (body(input="x" * 3 * 2**20), 413, "larger"),
    "an unknown model": (body(model="gpt-9"), 404, "gpt-9"),
    "a model that is no string": (body(model=3), 400, "model"),
    "dimensions 0": (body(dimensions=0), 400, "dimensions"),
    "dimensions 10,000": (body(dimensions=10_000), 400, "dimensions"),
    "dimensions a string": (body(dimensions="8"), 400, "dimensions"),
    "an unknown encoding_format": (body(encoding_format="hex"), 400, "encoding_format"),
}


def assert_openai_shaped(response: httpx.Response) -> dict:
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    return error


@pytest.mark.parametrize(("content", "status", "says"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_answered_clearly_and_the_server_goes_on(server, content, status, says):
    response = server.http.post("/v1/embeddings", content=content)

    assert response.status_code == status, response.text
    error = assert_openai_shaped(response)
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"
    assert server.process.poll() is None
    assert server.http.post("/v1/embeddings", content=body()).status_code == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"texts":["a"],"inputs":["b"]}', 400),
        (b'{"texts":[]}', 400),
        (b'{"texts":[""]}', 400),
        (b'{"texts":"a"}', 400),
        (b'{"inputs":[1]}', 400),
        (b'{"inputs":"a","normalize":false}', 400),
        (b'{"inputs":"a","model":"other"}', 404),
        (json.dumps({"texts": ["x"] * 2_049}).encode(), 422),
    ],
)
def test_bad_input_to_embed_is_answered_in_the_same_shape(server, content, status):
    response = server.http.post("/embed", content=content)

    assert response.status_code == status
    assert_openai_shaped(response)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/embeddings", 405), ("POST", "/healthz", 405), ("GET", "/nothing", 404)],
)
def test_unknown_paths_and_methods_are_answered_in_the_same_shape(server, method, path, status):
    response = server.http.request(method, path)

    assert response.status_code == status
    assert_openai_shaped(response)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache-control", "max-age=soon"),
        ("x-cacheproxy-ttl", "-5"),
        ("x-cacheproxy-min-similarity", "2"),
        ("x-cacheproxy-semantic", "perhaps"),
        ("x-cacheproxy-tags", "no spaces allowed"),
        ("x-cacheproxy-namespace", ""),
    ],
)
def test_a_header_that_cannot_be_honoured_is_refused(server, name, value):
    response = server.http.post("/v1/embeddings", content=body(), headers={name: value})

    assert response.status_code == 400
    assert_openai_shaped(response)


def test_a_compressed_body_is_refused(server):
    response = server.http.post(
        "/v1/embeddings", content=body(), headers={"content-encoding": "gzip"}
    )

    assert response.status_code == 415
    assert_openai_shaped(response)


def test_a_bad_input_in_a_batch_stores_and_infers_nothing_of_it(server):
    before = server.inferred()

    server.http.post("/v1/embeddings", content=body(input=["good one", ""]))

    assert server.inferred() == before


def test_the_official_client_raises_its_own_errors(server):
    client = server.client()

    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(input="x", model="gpt-9")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(input="", model=MODEL)
    with pytest.raises(openai.UnprocessableEntityError):
        client.embeddings.create(input=["x"] * 2_049, model=MODEL)


def test_a_body_that_never_comes_is_given_up_and_others_are_served_meanwhile(start_server):
    server = start_server("--limits-body-timeout-s", "0.2")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{"
        )
        assert server.client().embeddings.create(input="meanwhile", model=MODEL).data

        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_queue_that_is_full_answers_429_with_a_time_to_retry(start_server):
    server = start_server("--batch-max-wait-ms", "0.001", "--batch-threads", "1")
    import concurrent.futures

    def ask(i: int) -> httpx.Response:
        body = {"input": f"{i} " + "word " * 200, "model": MODEL}
        return server.http.post("/v1/embeddings", json=body)

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(200)))

    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {200, 429}
    assert assert_openai_shaped(refused[0])["code"] == "queue_full"
    assert int(refused[0].headers["retry-after"]) >= 1
    assert server.metric("shed_total", reason="queue") == len(refused)


def test_texts_of_a_client_that_has_left_are_not_inferred(start_server):
    server = start_server("--batch-threads", "1")
    host, port = server.url.removeprefix("http://").split(":")
    content = body(input=[f"{i} " + "word " * 250 for i in range(200)])
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + content)
        wait_until(server.inferred)
    wait_until(lambda: server.metric("requests_total", status="499") > 0)
    assert server.client().embeddings.create(input="next", model=MODEL).data
    assert server.metric("queue_depth") == 0
    assert server.inferred() < 200
