"""The semantic tier for chat, through the real server: it opens on evidence, and within its bounds.

The upstream answers by a question's topic and words every answer anew, and judges as `topics` says.
A fifth of the hits may be wrong here, and judging may cost as much as it likes, so that some 150
questions open the tier.
"""

import re
from collections.abc import Iterator
from itertools import product

import pytest
from asking import wait_until
from chatting import PATH, ask, check_stream, status_of, text_of, told
from server_process import Server
from topics import FORMS, TOPICS, UNSEEN, answer_for, rewording, settled, teach
from upstream import Upstream

FREELY = ("--chat-learning-share", "1", "--chat-open-share", "1")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def taught(model_home, upstream) -> Iterator[Server]:
    """A server whose semantic tier has opened."""
    flags = ("--upstream", upstream.url, "--chat-max-error", "0.2", *FREELY, "--admin-port", "0")
    server = Server(model_home, "memory://", "--drain-s", "0", *flags)
    upstream.always = rewording()
    server.hits = teach(server, TOPICS)
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(autouse=True)
def _by_topic(_as_scripted, upstream):
    upstream.always = rewording()


def hit_of(server, topic="umbrella", **more):
    """Return a hit by likeness, in a wording that was not asked for yet."""
    for marks in product("?!", repeat=6):
        question = f"How do I reset the {topic} on my account{''.join(marks)}"
        response = ask(server, question, **more)
        if "detail=semantic" in status_of(response):
            return response
        settled(server)
    raise AssertionError("nothing was served by likeness")


def test_it_starts_closed_and_opens_on_evidence(taught):
    assert len(taught.hits) > 20
    wrong = sum(answer_for(topic) not in text for topic, text in taught.hits)
    assert wrong <= 0.2 * len(taught.hits)
    assert taught.metric("semantic_certified", model="gpt-test") == 1
    assert taught.metric("semantic_shadow_labels_total", result="right") >= 16
    told = taught.admin.get("/admin/thresholds").json()["chat"]
    (namespace,) = told["models"]["gpt-test"]["namespaces"]
    assert (told["max_error"], namespace["tenant"]) == (0.2, "default")
    assert namespace["state"] == "open"
    assert namespace["story"].startswith("open: serves from")
    assert namespace["hits"] >= len(taught.hits)
    assert told["models"]["gpt-test"]["judge"] == "gpt-test"
    for purpose in ("label", "control", "sensitivity"):
        assert taught.metric("own_requests_total", purpose=purpose) > 5
        assert taught.metric("own_tokens_total", purpose=purpose) > 5


def test_a_hit_says_how_near_it_was_and_streams_as_well(taught):
    hit = hit_of(taught)

    assert answer_for("umbrella") in text_of(hit)
    assert 0.7 < float(hit.headers["x-cacheproxy-similarity"]) <= 1
    assert re.fullmatch(r"[0-9a-f]{64}-\d+", hit.headers["x-cacheproxy-entry"])
    streamed = hit_of(taught, "candle", stream=True)
    assert answer_for("candle") in told(check_stream(streamed.content, with_usage=False))


@pytest.mark.parametrize(
    "more",
    [
        {"model": "gpt-other"},
        {"temperature": 0},
        {"seed": 7},
        {"max_tokens": 100},
        {"user": "alice"},
        {"response_format": {"type": "text"}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_nothing_but_the_last_turn_may_differ(taught, more):
    assert "fwd=miss" in status_of(ask(taught, UNSEEN.format("camera"), **more))


@pytest.mark.parametrize(
    "before",
    [
        [{"role": "system", "content": "Answer in French."}],
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
    ],
    ids=["system prompt", "earlier turns"],
)
def test_what_came_before_the_last_turn_may_not_differ(taught, before):
    turn = {"role": "user", "content": UNSEEN.format("camera")}
    body = {"model": "gpt-test", "messages": [*before, turn]}

    assert "fwd=miss" in status_of(taught.http.post(PATH, json=body))


def test_another_namespace_is_never_looked_into(taught):
    headers = {"x-cacheproxy-namespace": "another"}

    for form in FORMS:
        assert "fwd=miss" in status_of(ask(taught, form.format("router"), headers=headers))


@pytest.mark.parametrize(
    "question",
    [
        "How do I reset the 2 printer on my account?",
        "How do I not reset the printer on my account?",
        'How do I reset the "printer" on my account?',
        "How do I reset the `printer` on my account?",
        "How do I reset the printer on my account today?",
        "How do I reset the printer on my_account?",
    ],
)
def test_what_a_veto_names_is_never_served_by_likeness(taught, question):
    assert "fwd=miss" in status_of(ask(taught, question))


def test_a_request_may_be_stricter_and_never_looser(taught):
    def ask_with(question, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return status_of(ask(taught, question, headers=headers))

    question = "And how do I reset the helmet on my account?"
    assert "fwd=miss" in ask_with(question, x_cacheproxy_min_similarity="1")
    question = "But how do I reset the helmet on my account?"
    assert "fwd=miss" in ask_with(question, x_cacheproxy_semantic="off")
    unlike = "Write a long poem about the scooter and the sea"
    assert "fwd=miss" in ask_with(unlike, x_cacheproxy_min_similarity="0")


def test_a_reported_hit_is_gone_and_counts_as_a_label(taught):
    hit = hit_of(taught, "ladder")
    wrong = taught.metric("semantic_shadow_labels_total", result="wrong")

    report = {"id": hit.headers["x-cacheproxy-entry"]}
    assert taught.http.post("/v1/cache/report", json=report).json() == {"removed": 1}

    assert taught.metric("semantic_shadow_labels_total", result="wrong") == wrong + 1
    assert taught.http.post("/v1/cache/report", json=report).status_code == 404


def test_a_hit_that_the_judge_rejects_is_removed(taught, upstream):
    upstream.always = rewording(lambda pair: False)
    wrong = taught.metric("semantic_shadow_labels_total", result="wrong")
    served = []
    for marks in product("?!", repeat=6):
        hit = ask(taught, f"How do I reset the stapler on my account{''.join(marks)}")
        settled(taught)
        if "detail=semantic" not in status_of(hit):
            break  # the entry is gone, or the alarm has closed the tier
        served.append(hit.headers["x-cacheproxy-entry"].split("-")[0])
    assert served

    assert taught.metric("semantic_shadow_labels_total", result="wrong") > wrong
    gone = {"id": served[-1]}
    wait_until(lambda: taught.http.post("/v1/cache/report", json=gone).status_code == 404)


def test_switched_off_it_is_exact_only(start_server, upstream):
    server = start_server("--upstream", upstream.url, "--chat-semantic", "off")

    ask(server, FORMS[0].format("mirror"))
    ask(server, FORMS[1].format("mirror"))

    assert server.metric("semantic_shadow_labels_total", model="gpt-test") == 0
    assert server.inferred() == 0
