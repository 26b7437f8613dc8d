"""Everything else under /v1 goes to the upstream as it is: uncached, streamed, counted."""

import json

import openai
import pytest
from chatting import ask
from upstream import says

from cacheproxy.api.access.key_ring import hash_key

FLAGGED = {
    "id": "modr-1",
    "model": "omni-moderation-latest",
    "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
}


def as_json(value):
    return json.dumps(value).encode()


def test_an_openai_client_reaches_what_is_not_cached(chat, upstream):
    client = openai.OpenAI(base_url=f"{chat.url}/v1", api_key="unused", max_retries=0)
    for _ in range(2):
        upstream.plan.append(says(200, as_json(FLAGGED)))
        raw = client.moderations.with_raw_response.create(input="hello")
        assert raw.parse().id == "modr-1"
        assert "fwd=bypass" in raw.headers["cache-status"]
    assert upstream.last.path == "/v1/moderations"
    assert chat.metric("requests_total", route="passthrough", status="200") == 2


def test_method_path_query_body_and_status_arrive_as_they_are(chat, upstream):
    upstream.plan.append(says(418, b"short and stout", "text/plain"))

    answer = chat.http.put(
        "/v1/pots/7?lid=on&size=2", content=b'{"a": 1}', headers={"content-type": "x/pot+json"}
    )

    assert (answer.status_code, answer.text) == (418, "short and stout")
    assert answer.headers["content-type"] == "text/plain"
    asked = upstream.last
    assert asked.path == "/v1/pots/7?lid=on&size=2"
    assert asked.headers["content-type"] == "x/pot+json"
    assert asked.raw == b'{"a": 1}'


def test_a_stream_is_passed_on_as_it_comes(chat, upstream):
    async def drip(exchange):
        await exchange.begin_stream("text/event-stream")
        for word in ("one", "two"):
            await exchange.chunk(word.encode())
        await exchange.end_stream(done=False)

    upstream.plan.append(drip)
    with chat.http.stream("POST", "/v1/speech", json={"stream": True}) as answer:
        assert "".join(answer.iter_text()) == "onetwo"


@pytest.mark.parametrize("path", ["/v1/../admin/stats", "/v1/a/../../b"])
def test_a_path_cannot_leave_the_upstreams_api(chat, upstream, path):
    count = len(upstream)
    request = chat.http.build_request("GET", "/v1/x")
    request.url = request.url.copy_with(raw_path=path.encode())

    assert chat.http.send(request).status_code in (400, 404)
    assert len(upstream) == count


def test_tenants_that_share_a_key_cannot_reach_what_others_stored(start_server, upstream, tmp_path):
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[api_keys]\nacme = ["{hash_key("a")}"]\nother = ["{hash_key("o")}"]\n'
        f'[upstreams.main]\nbase_url = "{upstream.url}"\napi_key = "secret"\n'
    )
    server = start_server("--config", str(config))
    key = {"authorization": "Bearer a"}

    assert server.http.get("/v1/files", headers=key).status_code == 403
    assert server.http.get("/v1/files").status_code == 401
    upstream.plan.append(says(200, as_json(FLAGGED)))
    answer = server.http.post("/v1/moderations", json={"input": "x"}, headers=key)
    assert answer.status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer secret"


def test_it_can_be_switched_off(start_server, upstream):
    server = start_server("--upstream", upstream.url, "--upstream-passthrough", "off")

    assert server.http.post("/v1/moderations", json={}).status_code == 404
    assert ask(server, "Still served?").status_code == 200
