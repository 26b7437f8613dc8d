"""The OpenAPI documents of a real server: valid, complete, and what the server really does.

schemathesis generates requests from the documents, valid and invalid ones, and compares every
answer with them: no server error, no status, header or content type that is not described, no body
that its schema does not allow, no valid request refused, no invalid one accepted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from asking import MODEL
from openapi_spec_validator import OpenAPIV31SpecValidator
from reranking import NAME, home_with_reranker
from server_process import Server
from upstream import Exchange, Upstream, well_behaved

import cacheproxy.admin
import cacheproxy.api
from cacheproxy.admin.operations import ADMIN
from cacheproxy.api.access.key_ring import hash_key
from cacheproxy.api.openapi import PUBLIC, declared, document

HERE = Path(__file__).parent
KEY = "a-key"
BEARER = {"authorization": f"Bearer {KEY}"}


REFUSAL = b'{"error": {"message": "odd messages", "type": "x", "param": null, "code": null}}'


async def judging(exchange: Exchange) -> None:
    """Answer as an upstream that refuses a request without a usable question."""
    body, path = exchange.asked.body, exchange.asked.path
    field = {"/v1/responses": "input", "/v1/completions": "prompt"}.get(path, "messages")
    given = body.get(field)
    are_messages = isinstance(given, list) and all(
        isinstance(each, dict) and isinstance(each.get("content"), str) for each in given
    )
    if given and (are_messages or (isinstance(given, str) and field != "messages")):
        await well_behaved(exchange)
    else:
        await exchange.answer(400, REFUSAL)


@pytest.fixture(scope="module")
def everything(model_home, tmp_path_factory):
    """A server with every route, which asks for keys."""
    upstream = Upstream()
    upstream.always = judging
    config = tmp_path_factory.mktemp("openapi") / "cacheproxy.toml"
    config.write_text(f'[api_keys]\nacme = ["{hash_key(KEY)}"]\n')
    home = home_with_reranker(tmp_path_factory.mktemp("rerank"), model_home)
    flags = ("--drain-s", "0", "--admin-port", "0", "--config", str(config))
    server = Server(
        home,
        "memory://",
        *flags,
        *("--upstream", upstream.url, "--model", MODEL, "--model", NAME),
        env={"CACHEPROXY_ADMIN_TOKEN": KEY},
    )
    yield server
    assert server.stop() == 0, server.log
    upstream.stop()


def run_schemathesis(url: str, tmp_path: Path) -> None:
    """Have the API at the URL tested; fail with the report of what was found."""
    command = ["schemathesis", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    done = subprocess.run(
        [*command, f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "support")},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_api_does_what_its_document_says(everything, tmp_path):
    run_schemathesis(everything.url, tmp_path)


def test_the_admin_api_does_what_its_document_says(everything, tmp_path):
    run_schemathesis(everything.admin_url, tmp_path)


@pytest.mark.parametrize("listener", ["http", "admin"])
def test_the_document_is_valid_and_anybody_may_have_it(everything, listener):
    answer = getattr(everything, listener).get("/openapi.json")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    OpenAPIV31SpecValidator(answer.json()).validate()


def test_every_declared_operation_is_served_and_described(everything):
    for listener, about, package in (
        (everything.http, PUBLIC, cacheproxy.api),
        (everything.admin, ADMIN, cacheproxy.admin),
    ):
        served = listener.get("/openapi.json").json()["paths"]
        assert served == document(about, declared(package), needs_key=True)["paths"]


def test_only_what_is_served_is_described(server):
    paths = server.http.get("/openapi.json").json()["paths"]

    assert "/v1/chat/completions" not in paths
    assert "/v1/embeddings" in paths


@pytest.mark.parametrize("listener", ["http", "admin"])
def test_the_examples_of_requests_are_answered_as_described(everything, listener):
    http: httpx.Client = getattr(everything, listener)
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for content in methods.get("post", {}).get("requestBody", {}).get("content", {}).values():
            for title, example in content["examples"].items():
                answer = http.post(path, json=example["value"], headers=BEARER)
                expected = 404 if path == "/v1/cache/report" else 200
                assert answer.status_code == expected, (path, title, answer.text)


def test_an_operation_names_every_header_of_ours_that_it_answers_with(everything):
    described = everything.http.get("/openapi.json").json()["paths"]
    body = {"model": "gpt-test", "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]}
    for path, asked in (
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": ["a text", "another"]}),
        ("/v1/chat/completions", body),
    ):
        for _ in range(3):
            answer = everything.http.post(path, json=asked, headers=BEARER)
            assert answer.status_code == 200
            named = {
                name.lower() for name in described[path]["post"]["responses"]["200"]["headers"]
            }
            ours = {
                name
                for name in answer.headers
                if name in ("cache-status", "server-timing", "age") or "cacheproxy" in name
            }
            assert ours <= named


def test_an_upstreams_error_tells_the_requests_id_as_our_own_errors_do(everything):
    for messages in ([], [{}]):
        body = {"model": "gpt-test", "messages": messages}
        answer = everything.http.post("/v1/chat/completions", json=body, headers=BEARER)

        assert answer.content == REFUSAL
        assert len(answer.headers.get_list("x-request-id")) == 1


def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes(server):
    answer = server.http.delete("/v1/embeddings")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_the_command_line_prints_the_same_document_without_a_server(everything):
    for flags, listener in ((), everything.http), (("--admin",), everything.admin):
        command = [sys.executable, "-m", "cacheproxy", "openapi", *flags]
        printed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        served = listener.get("/openapi.json").json()
        assert printed["components"] == served["components"]
        assert printed["paths"].keys() == served["paths"].keys()
