"""The list of models: local ones, those that are configured, and those that an upstream lists."""

import json

import openai
import pytest
from asking import wait_until
from server_process import Server
from upstream import Upstream, says

from cacheproxy.api.access.key_ring import hash_key

MODEL = "all-MiniLM-L6-v2"
LIST = {
    "object": "list",
    "data": [
        {"id": "org/chat-7b", "object": "model", "created": 1_700_000_000, "owned_by": "vllm"},
        {"id": "gpt-far", "object": "model"},
        {"id": MODEL, "object": "model", "owned_by": "somebody else"},
        {"id": "", "object": "model"},
    ],
}


@pytest.fixture
def listed():
    upstream = Upstream()
    upstream.listing = says(200, json.dumps(LIST).encode())
    yield upstream
    upstream.stop()


def ids(server) -> list[str]:
    return [model.id for model in server.client().models.list()]


def test_an_upstreams_own_list_follows_the_local_model_and_is_asked_for_once(start_server, listed):
    server = start_server("--upstream", listed.url)

    for _ in range(3):
        assert ids(server) == [MODEL, "org/chat-7b", "gpt-far"]
    assert len(listed.lists_asked) == 1
    model = server.client().models.retrieve("org/chat-7b")
    assert (model.owned_by, model.created) == ("vllm", 1_700_000_000)
    assert server.client().models.retrieve(MODEL).owned_by == "cacheproxy"


def test_a_local_model_tells_its_kind_dimensions_and_limits(server):
    model = server.http.get(f"/v1/models/{MODEL}").json()

    assert {name: model[name] for name in ("kind", "dimensions", "max_tokens", "max_inputs")} == {
        "kind": "embeddings",
        "dimensions": 384,
        "max_tokens": 256,
        "max_inputs": 2_048,
    }
    assert model["matryoshka"] == []


def test_a_model_is_found_by_an_alias_with_a_slash_and_others_are_not(server):
    client = server.client()

    assert client.models.retrieve(f"sentence-transformers/{MODEL}").id == MODEL
    assert server.http.get(f"/v1/models/sentence-transformers%2F{MODEL}").json()["id"] == MODEL
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-9")
    assert missing.value.code == "model_not_found"


def test_only_configured_models_of_an_upstream_that_has_such_are_listed(
    start_server, listed, tmp_path
):
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{listed.url}"\nmodels = ["org/chat-7b", "unlisted"]\n'
        'embeddings = { "far-model" = 8 }\n'
    )
    server = start_server("--config", str(config))

    models = {model["id"]: model for model in server.http.get("/v1/models").json()["data"]}

    assert list(models) == [MODEL, "far-model", "org/chat-7b", "unlisted"]
    assert models["org/chat-7b"]["owned_by"] == "vllm"
    assert models["org/chat-7b"]["kind"] == models["unlisted"]["kind"] == "completions"
    assert models["far-model"]["kind"] == "embeddings"
    assert models["far-model"]["dimensions"] == 8


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": [{"id": 7}]}', b'{"data": [{'])
def test_an_upstream_without_a_usable_list_costs_nothing_but_its_models(start_server, listed, body):
    listed.listing = says(200, body)
    server = start_server("--upstream", listed.url)

    assert ids(server) == [MODEL]


def test_an_upstream_that_does_not_answer_is_not_waited_for_long(start_server, listed):
    gate = listed.gate()

    async def stall(exchange):
        await gate.passed()

    listed.listing = stall
    server = start_server("--upstream", listed.url)

    assert ids(server) == [MODEL]
    assert ids(server) == [MODEL]
    assert len(listed.lists_asked) == 1
    gate.open()


def test_the_list_takes_a_key_where_keys_are_configured(model_home, tmp_path, listed):
    config = tmp_path / "cacheproxy.toml"
    config.write_text(f'[api_keys]\nacme = ["{hash_key("a-key")}"]\n')
    flags = ("--drain-s", "0", "--config", str(config), "--upstream", listed.url)
    server = Server(model_home, "memory://", *flags)
    try:
        assert server.http.get("/v1/models").status_code == 401
        assert server.http.get(f"/v1/models/{MODEL}").status_code == 401
        assert not listed.lists_asked
        with_key = server.http.get("/v1/models", headers={"authorization": "Bearer a-key"})
        assert with_key.status_code == 200
        wait_until(lambda: listed.lists_asked)
    finally:
        server.stop()
