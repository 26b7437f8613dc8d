"""Which upstream is asked, and when its circuit is open."""

import pytest
from upstream import says

from cacheproxy.errors import Unavailable, UpstreamFailed
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.upstreams.client import Upstream as Client
from cacheproxy.upstreams.fallback import GuardedUpstream, Upstreams

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'


@pytest.fixture
async def upstreams(servers):
    settings = {f"u{i}": UpstreamSettings(base_url=server.url) for i, server in enumerate(servers)}
    upstreams = Upstreams(settings, Metrics())
    upstreams.start()
    yield upstreams
    await upstreams.stop()


async def ask(upstreams, model="m"):
    answer = await upstreams.post(model, "chat/completions", BODY, {})
    try:
        await answer.read()
    finally:
        answer.close()
    return answer.head


async def test_the_first_answers_while_it_is_well(upstreams, servers):
    heads = [await ask(upstreams) for _ in range(3)]

    assert [head.upstream for head in heads] == ["u0"] * 3
    assert len(servers[1]) == 0


async def test_connections_are_kept(upstreams, servers):
    for _ in range(5):
        await ask(upstreams)

    assert servers[0].connections == 1


async def test_an_error_of_the_first_is_answered_by_the_second(upstreams, servers):
    servers[0].plan.append(says(500, b"{}"))

    assert (await ask(upstreams)).upstream == "u1"


async def test_the_clients_mistakes_are_nobody_elses(upstreams, servers):
    servers[0].plan.append(says(400, b"{}"))

    head = await ask(upstreams)

    assert (head.status, head.upstream) == (400, "u0")


async def test_if_the_second_cannot_be_reached_the_firsts_error_is_passed_on(upstreams, servers):
    servers[1].vanish()
    servers[0].always = says(500, b"{}")

    assert [(await ask(upstreams)).status for _ in range(3)] == [500] * 3


async def test_if_no_upstream_can_be_reached_their_circuits_open(upstreams, servers):
    for server in servers:
        server.vanish()
    for _ in range(5):
        with pytest.raises(UpstreamFailed):
            await ask(upstreams)
    with pytest.raises(Unavailable) as refused:
        await ask(upstreams)

    assert refused.value.retry_after_s >= 1


async def test_only_upstreams_that_have_the_model_are_asked(servers):
    settings = {
        "a": UpstreamSettings(base_url=servers[0].url, models=("a",)),
        "b": UpstreamSettings(base_url=servers[1].url, models=("b", "c")),
    }
    upstreams = Upstreams(settings, Metrics())
    upstreams.start()

    assert (await ask(upstreams, "c")).upstream == "b"
    assert upstreams.first("d") is None
    assert upstreams.models() == ["a", "b", "c"]
    await upstreams.stop()


def test_an_upstream_whose_circuit_is_open_is_probed_by_one_request_at_a_time():
    now = 100.0
    settings = UpstreamSettings(base_url="http://127.0.0.1:9/v1")
    one = GuardedUpstream(
        Client("u", settings, Metrics()), Metrics(), monotonic=lambda: now, chance=lambda: 0.0
    )
    for second in range(5):
        now = 100.0 + second
        one.failed("connect", began_at=now)
    assert not one.may_ask()

    now += 1
    assert one.may_ask()
    assert not one.may_ask()
    one.abandoned(began_at=now)  # its caller has left: the probe failed
    assert not one.may_ask()
    now += 2
    assert one.may_ask()
    one.succeeded()
    assert one.may_ask()
    assert one.may_ask()
