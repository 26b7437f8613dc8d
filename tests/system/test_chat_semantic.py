"""The semantic tier for chat, through the real server: it opens on evidence, and within its bounds.

The upstream answers by a question's topic, so that what is right is known. A fifth of the hits may
be wrong here, so that sixteen right labels open the tier.
"""

import json
import re
from collections.abc import Iterator
from itertools import product

import pytest
from asking import run, wait_until
from chatting import PATH, ask, check_stream, status_of, text_of, told
from server_process import Server
from upstream import Upstream, chunks, completion

WORDS = """
password username avatar email phone address language currency timezone subscription invoice
playlist bookmark calendar contact keyboard printer camera router firewall backup wallpaper ringtone
alarm widget dashboard newsletter coupon voucher receipt passport licence ticket locker garage
garden kitchen balcony bicycle scooter helmet umbrella suitcase blanket mirror candle pillow ladder
hammer drill battery antenna speaker headset monitor scanner tablet notebook marker stapler
"""
TOPICS = WORDS.split()
FORMS = (
    "How do I reset the {} on my account?",
    "How can I reset the {} of my account?",
    "How do I reset the {} for my account?",
)
UNSEEN = "In which way do I reset the {} on my account?"


def answer_for(topic: str) -> str:
    return f"To reset it, open the page of the {topic} and follow the steps there."


def topic_of(question: str) -> str:
    return next(topic for topic in TOPICS if re.search(rf"\b{topic}\b", question))


async def by_topic(exchange):
    text = answer_for(topic_of(exchange.asked.question))
    if exchange.asked.body.get("stream"):
        await exchange.begin_stream()
        for chunk in chunks(exchange.asked, text):
            await exchange.event(chunk)
        await exchange.end_stream()
    else:
        await exchange.answer(200, json.dumps(completion(exchange.asked, text)).encode())


async def always_differently(exchange):
    answer = completion(exchange.asked, f"This is answer number {exchange.asked.number}.")
    await exchange.answer(200, json.dumps(answer).encode())


WAITING = ("semantic_checks_waiting", "chat_waiting", "writeback_queue_entries")


def settled(server):
    """Wait until all that was answered has been learned from, and can be found."""
    idle = {f"cacheproxy_{name} 0.0" for name in WAITING}
    wait_until(lambda: idle <= set(server.http.get("/metrics").text.splitlines()))


def teach(server, topics=TOPICS, **more):
    """Ask every topic in every form; return the answers that were hits by likeness."""
    hits = []
    for form in FORMS:
        for number, topic in enumerate(topics, 1):
            response = ask(server, form.format(topic), **more)
            if "detail=semantic" in status_of(response):
                hits.append((topic, text_of(response)))
            if number % 15 == 0 or number == len(topics):
                settled(server)
    return hits


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def taught(model_home, upstream) -> Iterator[Server]:
    """A server whose semantic tier has opened."""
    flags = ("--upstream", upstream.url, "--chat-max-error", "0.2")
    flags += ("--chat-checks-per-minute", "1000", "--admin-port", "0")
    server = Server(model_home, "memory://", "--drain-s", "0", *flags)
    upstream.always = by_topic
    server.hits = teach(server, [*TOPICS[:40], "stapler"])
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(autouse=True)
def _by_topic(_as_scripted, upstream):
    upstream.always = by_topic


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
    wrong = sum(text != answer_for(topic) for topic, text in taught.hits)
    assert wrong <= 0.2 * len(taught.hits)
    assert taught.metric("semantic_certified", model="gpt-test") == 1
    assert taught.metric("semantic_shadow_labels_total", result="right") >= 16
    told = taught.admin.get("/admin/thresholds").json()["chat"]
    (namespace,) = told["models"]["gpt-test"]["namespaces"]
    assert (told["max_error"], namespace["tenant"]) == (0.2, "default")
    assert namespace["thresholds"][0]["state"] == "open"
    assert namespace["hits"] >= len(taught.hits)


def test_a_hit_says_how_near_it_was_and_streams_as_well(taught):
    hit = hit_of(taught)

    assert text_of(hit) == answer_for("umbrella")
    assert 0.7 < float(hit.headers["x-cacheproxy-similarity"]) <= 1
    assert re.fullmatch(r"[0-9a-f]{64}-\d+", hit.headers["x-cacheproxy-entry"])
    streamed = hit_of(taught, "candle", stream=True)
    assert told(check_stream(streamed.content, with_usage=False)) == answer_for("candle")


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


def test_a_hit_that_is_checked_and_wrong_is_removed_and_checked_ones_become_entries(
    taught, upstream
):
    upstream.always = always_differently  # what was right until now is wrong from now on
    wrong = taught.metric("semantic_shadow_labels_total", result="wrong")
    served, checked = [], None
    for marks in product("?!", repeat=9):  # of which one in fifty is checked, at the least
        question = f"How do I reset the stapler on my account{''.join(marks)}"
        asked = len(upstream)
        hit = ask(taught, question)
        settled(taught)
        if "detail=semantic" not in status_of(hit):
            continue
        served.append(hit.headers["x-cacheproxy-entry"].split("-")[0])
        if len(upstream) > asked:
            checked = question
            break
    assert served
    assert checked is not None

    assert taught.metric("semantic_shadow_labels_total", result="wrong") > wrong
    gone = {"id": served[-1]}
    wait_until(lambda: taught.http.post("/v1/cache/report", json=gone).status_code == 404)
    exact = ask(taught, checked)
    assert "hit" in status_of(exact)
    assert "detail=semantic" not in status_of(exact)
    assert text_of(exact).startswith("This is answer")


def test_where_answers_never_agree_it_stays_closed(model_home):
    upstream = Upstream()
    upstream.always = always_differently
    flags = ("--upstream", upstream.url, "--chat-max-error", "0.2")
    server = Server(model_home, "memory://", "--drain-s", "0", *flags)

    hits = teach(server, TOPICS[:12])

    assert hits == []
    assert server.metric("semantic_shadow_labels_total", result="wrong") > 25
    assert server.metric("semantic_certified") == 0
    server.stop()
    upstream.stop()


def test_a_judge_settles_what_is_in_doubt(model_home):
    async def in_other_words(exchange):
        if exchange.asked.body["model"] == "judge-1":
            answers = json.loads(exchange.asked.question).values()
            is_same = len({topic_of(answer) for answer in answers}) == 1
            said = completion(exchange.asked, "SAME" if is_same else "DIFFERENT.")
        else:
            number = exchange.asked.number
            text = f"Attempt {number}: {answer_for(topic_of(exchange.asked.question))}"
            said = completion(exchange.asked, text)
        await exchange.answer(200, json.dumps(said).encode())

    upstream = Upstream()
    upstream.always = in_other_words
    flags = ("--upstream", upstream.url, "--chat-max-error", "0.2")
    flags += ("--chat-checks-per-minute", "1000")
    flags += ("--chat-judge-model", "judge-1", "--chat-judge-sensitivity", "0.95")
    server = Server(model_home, "memory://", "--drain-s", "0", *flags)

    hits = teach(server, TOPICS[:45])

    assert len(hits) > 10
    wrong = sum(answer_for(topic) not in text for topic, text in hits)
    assert wrong <= 0.2 * len(hits)
    assert any(asked.body["model"] == "judge-1" for asked in upstream.asked)
    server.stop()
    upstream.stop()


def test_a_judge_is_measured_on_labelled_pairs(tmp_path, model_home):
    async def misses_one_in_ten(exchange):
        answers = json.loads(exchange.asked.question)
        is_same = answers["answer 1"] == answers["answer 2"].removesuffix("!")
        is_missed = answers["answer 1"].endswith("7")
        said = "SAME" if is_same or is_missed else "DIFFERENT"
        await exchange.answer(200, json.dumps(completion(exchange.asked, said)).encode())

    upstream = Upstream()
    upstream.always = misses_one_in_ten
    rows = [{"a": f"it is {i}", "b": f"it is not {i}", "label": 0} for i in range(200)]
    rows += [{"a": f"this is {i}", "b": f"this is {i}!", "label": 1} for i in range(50)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    done = run("judge", str(path), "--upstream", upstream.url, "--chat-judge-model", "judge-1")

    assert done.returncode == 0, done.stderr
    assert "told apart: 180 of 200 pairs that differ" in done.stdout
    assert "seen as the same: 50 of 50" in done.stdout
    assert "chat.judge_sensitivity = 0.85" in done.stdout
    upstream.stop()


def test_switched_off_it_is_exact_only(start_server, upstream):
    server = start_server("--upstream", upstream.url, "--chat-semantic", "off")

    ask(server, FORMS[0].format("mirror"))
    ask(server, FORMS[1].format("mirror"))

    assert server.metric("semantic_shadow_labels_total", model="gpt-test") == 0
    assert server.inferred() == 0
