"""The chat endpoint's own promises: clients that do not read, and what LiteLLM's field asks for."""

import asyncio

import pytest

from cacheproxy.api import completions_endpoint
from cacheproxy.api.canaries import Canaries
from cacheproxy.api.completions_endpoint import CompletionsEndpoint
from cacheproxy.api.connection import ClientGone, Watch
from cacheproxy.api.litellm_control import merge_control, merge_namespace, read_cache_field
from cacheproxy.api.report import entry_id
from cacheproxy.errors import BadRequest
from cacheproxy.keys import Namespace
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.exchange import Control
from cacheproxy.telemetry.metrics import Metrics


async def test_a_client_that_takes_nothing_of_its_stream_is_left(monkeypatch):
    monkeypatch.setattr(completions_endpoint, "_SLOW_CLIENT_S", 0.01)
    metrics = Metrics()
    endpoint = CompletionsEndpoint(
        ChatDialect(),
        None,
        None,
        None,
        callers=None,
        canaries=Canaries(metrics.rollout, (), has_chat=True),
        max_temperature=1,
        max_body_bytes=1,
        watch=Watch(body_timeout_s=1),
        metrics=metrics,
    )

    async def stuck(message):
        await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await endpoint._send_part(stuck, b"data: {}\n\n")

    assert metrics.registry.get_sample_value("cacheproxy_slow_clients_closed_total") == 1


@pytest.mark.parametrize(
    ("control", "cache", "merged"),
    [
        (Control(), {}, Control()),
        (Control(), {"ttl": 5}, Control(ttl_s=5)),
        (Control(ttl_s=3), {"ttl": 5}, Control(ttl_s=3)),
        (Control(max_age_s=9), {"s-maxage": 4}, Control(max_age_s=4)),
        (Control(max_age_s=2), {"s-maxage": 4}, Control(max_age_s=2)),
        (Control(no_cache=True), {"no-cache": False}, Control(no_cache=True)),
        (Control(), {"no-cache": True, "no-store": True}, Control(no_cache=True, no_store=True)),
        (Control(), {"supported_call_types": ["x"]}, Control()),
    ],
)
def test_of_headers_and_field_the_stricter_one_holds(control, cache, merged):
    assert merge_control(control, read_cache_field(cache)) == merged


@pytest.mark.parametrize(
    "cache",
    [
        *({"ttl": 0}, {"ttl": True}, {"ttl": "1"}, {"s-maxage": -1}, {"no-cache": "yes"}),
        *({"namespace": ""}, {"namespace": "x" * 257}, {"namespace": 5}),
    ],
)
def test_a_member_without_a_usable_value_is_refused(cache):
    with pytest.raises(BadRequest) as refused:
        read_cache_field(cache)

    assert refused.value.param == "cache"


@pytest.mark.parametrize(("name", "inside"), [("docs", "docs"), ("other/docs", "other/docs")])
def test_the_field_names_a_namespace_inside_the_tenant(name, inside):
    merged = merge_namespace(Namespace("acme", "default"), read_cache_field({"namespace": name}))

    assert merged == Namespace("acme", inside)


def test_an_entrys_id_tells_the_key_and_the_score():
    assert entry_id(bytes(32), None) == b"0" * 64
    assert entry_id(bytes(32), 0.97314) == b"0" * 64 + b"-9731"
    assert entry_id(bytes(32), -0.1) == b"0" * 64 + b"-0"
