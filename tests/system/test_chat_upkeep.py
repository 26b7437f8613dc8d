"""Completions after their time, reports of wrong ones, and what hits saved."""

import time
from collections.abc import Iterator

import pytest
from asking import wait_until
from chatting import ask, check_stream, status_of, text_of, told
from server_process import Server
from upstream import answer_to, says

REPORT = "/v1/cache/report"
BOTH_S = 3_600


@pytest.fixture(scope="module")
def lenient(model_home, upstream, tmp_path_factory) -> Iterator[Server]:
    """A server where one namespace may be served stale, in each of the two ways, and prices."""
    config = tmp_path_factory.mktemp("chat") / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\n'
        f"[namespace_stale_s.default]\n"
        f"behind = {{ while_revalidate = {BOTH_S} }}\n"
        f"errors = {{ if_error = {BOTH_S} }}\n"
        f'[prices."gpt-test"]\nprompt = 1000000\ncompletion = 2000000\n'
    )
    server = Server(model_home, "memory://", "--drain-s", "0", "--config", str(config))
    yield server
    assert server.stop() == 0, server.log


def ask_in(server, namespace, question, **more):
    headers = {"x-cacheproxy-namespace": namespace, "x-cacheproxy-ttl": "1"}
    headers |= more.pop("headers", {})
    return ask(server, question, headers=headers, **more)


def made_stale(server, namespace, question):
    """Have an answer cached whose second has passed, and return it."""
    answer = ask_in(server, namespace, question)
    made_at = time.time()
    wait_until(lambda: time.time() > made_at + 1)
    return answer


def test_a_stale_answer_is_served_at_once_and_asked_for_anew(lenient, upstream):
    first = made_stale(lenient, "behind", "Stale?")
    asked = len(upstream)

    stale = ask_in(lenient, "behind", "Stale?")

    assert stale.content == first.content
    assert "hit" in status_of(stale)
    assert int(status_of(stale).split("ttl=")[1].split(";")[0]) <= 0
    wait_until(lambda: len(upstream) == asked + 1)
    wait_until(lambda: ask_in(lenient, "behind", "Stale?").content != first.content)
    assert lenient.metric("stale_served_total", reason="revalidate") >= 1


@pytest.mark.parametrize("status", [500, 504])
def test_a_stale_answer_stands_in_for_an_upstreams_error(lenient, upstream, status):
    question = f"An error {status}?"
    first = made_stale(lenient, "errors", question)
    upstream.plan.append(says(status, b"{}"))

    stale = ask_in(lenient, "errors", question)

    assert stale.content == first.content
    assert f"fwd=stale; fwd-status={status}" in status_of(stale)
    assert "fwd=miss" in status_of(ask_in(lenient, "errors", question))


def test_a_stale_answer_stands_in_as_a_stream(lenient, upstream):
    made_stale(lenient, "errors", "Streamed instead?")
    upstream.plan.append(says(503, b"{}"))

    stale = ask_in(lenient, "errors", "Streamed instead?", stream=True)

    events = check_stream(stale.content, with_usage=False)
    assert told(events) == answer_to("Streamed instead?")


def test_429_is_no_error_that_a_stale_answer_stands_in_for(lenient, upstream):
    made_stale(lenient, "errors", "Too many?")
    upstream.plan.append(says(429, b"{}", retry_after="3"))

    assert ask_in(lenient, "errors", "Too many?").status_code == 429


def test_where_nothing_stale_is_allowed_the_error_is_passed_on(lenient, upstream):
    made_stale(lenient, "strict", "Strict?")
    upstream.plan.append(says(503, b"{}"))

    assert ask_in(lenient, "strict", "Strict?").status_code == 503


def test_a_request_may_allow_less_than_its_namespace(lenient, upstream):
    first = made_stale(lenient, "errors", "Less?")
    upstream.always = says(503, b"{}")

    def ask_with(directive):
        return ask_in(lenient, "errors", "Less?", headers={"cache-control": directive})

    assert ask_with("stale-if-error=0").status_code == 503
    assert ask_with("stale-if-error=600").content == first.content


def test_a_reported_answer_is_gone_at_once(chat, upstream):
    hit = [ask(chat, "Wrong?") for _ in range(2)][1]

    reported = chat.http.post(REPORT, json={"id": hit.headers["x-cacheproxy-entry"]})

    assert (reported.status_code, reported.json()) == (200, {"removed": 1})
    assert "fwd=miss" in status_of(ask(chat, "Wrong?"))
    assert chat.metric("cache_reports_total", model="gpt-test") >= 1


def test_a_report_of_what_is_not_there_is_a_404(chat):
    assert chat.http.post(REPORT, json={"id": "0" * 64}).status_code == 404
    assert chat.http.post(REPORT, json={"id": "chatcmpl-1"}).status_code == 400
    assert chat.http.post(REPORT, json={}).status_code == 400


def test_nobody_can_report_anothers_answer_away(start_server, upstream, tmp_path):
    from cacheproxy.api.access.key_ring import hash_key

    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[api_keys]\nacme = ["{hash_key("a")}"]\nother = ["{hash_key("o")}"]\n'
        f'[upstreams.main]\nbase_url = "{upstream.url}"\n'
    )
    server = start_server("--config", str(config))
    ours, theirs = ({"authorization": f"Bearer {key}"} for key in "ao")
    hit = [ask(server, "Ours?", headers=ours) for _ in range(2)][1]
    report = {"id": hit.headers["x-cacheproxy-entry"]}

    assert server.http.post(REPORT, json=report).status_code == 401
    assert server.http.post(REPORT, json=report, headers=theirs).status_code == 404
    assert "hit" in status_of(ask(server, "Ours?", headers=ours))
    assert "fwd=miss" in status_of(ask(server, "Ours?", headers=theirs))
    assert server.http.post(REPORT, json=report, headers=ours).json() == {"removed": 1}


def test_what_hits_saved_is_counted_in_tokens_time_and_money(lenient):
    question = "How much is saved by this?"
    usage = ask_in(lenient, "saved", question, headers={"x-cacheproxy-ttl": "60"}).json()["usage"]
    before = {
        name: lenient.metric(f"saved_{name}_total", model="gpt-test")
        for name in ("tokens", "seconds", "cost")
    }

    for _ in range(2):
        assert text_of(ask_in(lenient, "saved", question)) == answer_to(question)

    after = {name: lenient.metric(f"saved_{name}_total", model="gpt-test") for name in before}
    assert after["tokens"] - before["tokens"] == 2 * usage["total_tokens"]
    assert after["seconds"] > before["seconds"]
    cost = 2 * (usage["prompt_tokens"] + 2 * usage["completion_tokens"])
    assert after["cost"] - before["cost"] == pytest.approx(cost)
