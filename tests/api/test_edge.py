"""The outermost application: what it answers and logs when something breaks inside."""

import io
import json
import logging

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cacheproxy.api.edge import Edge
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.logs import start_logging

SECRET = "what the prompt says"  # noqa: S105


async def broken(_: Request) -> Response:
    try:
        int(SECRET)  # its message quotes what it was given
    except ValueError as error:
        raise RuntimeError(f"cannot read {SECRET}") from error
    return Response()


async def fine(_: Request) -> Response:
    return Response("fine")


@pytest.fixture
def requests() -> str:
    return "all"


@pytest.fixture
def ask(requests):
    """Return a function that asks the edge with these headers."""
    edge = Edge([Route("/broken", broken), Route("/fine", fine)], Journal(requests))

    async def ask(path: str, **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx.ASGITransport(edge)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
            return await http.get(path, headers=given)

    return ask


@pytest.fixture
def form() -> str:
    return "json"


@pytest.fixture
def log(form, monkeypatch):
    """What is logged."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    start_logging("info", form, process_id=False)
    return written


@pytest.mark.parametrize("form", ["human", "json"])
async def test_an_internal_error_is_logged_with_place_and_type_but_without_its_message(log, ask):
    answer = await ask("/broken", x_request_id="night-42")

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["x-request-id"] == "night-42"
    assert SECRET not in answer.text + log.getvalue()
    for word in ("night-42", "RuntimeError", "ValueError", "test_edge.py", "in broken"):
        assert word in log.getvalue()


async def test_json_logs_are_an_object_a_line(log, ask):
    await ask("/broken")
    await ask("/fine")

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [500, 200]
    assert {"time", "level", "logger", "process"} <= lines[0].keys()
    assert "Traceback" not in lines[0]["message"]


GIVEN = ["7f3a", "a" * 128, "req_0123:4/5+6=7.8-9"]
NOT_TAKEN = ["", "a" * 129, "two words", "line\tfeed", "<script>", "\u00e9"]


@pytest.mark.parametrize("given", GIVEN)
async def test_a_usable_request_id_comes_back(ask, given):
    assert (await ask("/fine", x_request_id=given)).headers["x-request-id"] == given


@pytest.mark.parametrize("given", NOT_TAKEN)
async def test_another_one_is_replaced_by_one_that_nobody_else_gets(ask, given):
    ids = {(await ask("/fine", x_request_id=given.encode())).headers["x-request-id"] for _ in "12"}
    assert len(ids) == 2
    assert given not in ids


async def test_even_what_is_not_found_has_an_id(ask):
    answer = await ask("/nothing")
    assert answer.status_code == 404
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("requests", ["off", "sampled"])
async def test_without_full_logging_ids_are_returned_on_request_and_in_errors(ask):
    assert "x-request-id" not in (await ask("/fine")).headers
    assert (await ask("/fine", x_request_id="mine")).headers["x-request-id"] == "mine"
    assert (await ask("/fine", x_request_id="not usable")).headers["x-request-id"]
    assert (await ask("/nothing")).headers["x-request-id"]
