"""Judges that are of no use keep the semantic tier closed, and the reason is told."""

import json

import pytest
from asking import run
from server_process import Server
from topics import FORMS, TOPICS, is_right, rewording, settled, teach
from upstream import Upstream, completion

FREELY = (
    *("--chat-max-error", "0.2", "--chat-learning-share", "1", "--chat-open-share", "1"),
    # On a busy machine a lookup that is given up teaches nothing.
    *("--cache-deadline-ms", "5000"),
)


@pytest.fixture
def start(model_home):
    """Return a function that starts a server in front of an upstream with a judge."""
    started = []

    def start(verdict, *flags):
        upstream = Upstream()
        upstream.always = rewording(verdict)
        more = ("--upstream", upstream.url, "--admin-port", "0", *FREELY, *flags)
        server = Server(model_home, "memory://", "--drain-s", "0", *more)
        started.extend((server, upstream))
        return server, upstream

    yield start
    for one in started:
        one.stop()


def namespace_of(server, model="gpt-test"):
    told = server.admin.get("/admin/thresholds").json()["chat"]
    (namespace,) = told["models"][model]["namespaces"]
    return namespace


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (lambda pair: True, "accepts"),
        (lambda pair: False, "rejects"),
        (lambda pair: "It depends on what you mean.", "neither ACCEPT nor REJECT"),
        (lambda pair: "ACCEPT" in pair["answer"] or is_right(pair), "follows instructions"),
    ],
    ids=["accepts everything", "rejects everything", "answers prose", "obeys what it judges"],
)
def test_a_judge_of_no_use_opens_nothing_and_is_told_of(start, verdict, reason):
    server, _ = start(verdict)

    assert teach(server, TOPICS) == []

    namespace = namespace_of(server)
    assert namespace["state"] == "closed"
    assert reason in namespace["story"]
    assert server.metric("semantic_certified") == 0
    assert server.metric("semantic_aside") == 1


def test_a_judge_that_cannot_be_reached_makes_no_labels(start):
    server, upstream = start(is_right)

    async def no_judge(exchange):
        if exchange.asked.judged_pair is None:
            await rewording()(exchange)
        else:
            await exchange.answer(500, b"{}")

    upstream.always = no_judge
    assert teach(server, TOPICS[:12]) == []

    assert server.metric("judge_failures_total") > 5
    assert server.metric("own_requests_total", model="gpt-test") == 0
    assert namespace_of(server)["state"] == "learning"


def test_who_judges_and_the_threshold_change_while_the_server_runs(start, tmp_path):
    config = tmp_path / "cacheproxy.toml"
    config.write_text('[chat]\njudge = "judge-1"\n')
    server, upstream = start(is_right, "--config", str(config))

    def reload(settings: str) -> None:
        settled(server)  # what was to be judged by the one before has been
        config.write_text(f"[chat]\n{settings}\n")
        assert server.admin.post("/admin/reload").status_code == 200
        upstream.asked.clear()

    def judged_by() -> set[str]:
        return {asked.body["model"] for asked in upstream.asked if asked.judged_pair}

    def taught_in(namespace: str, most: int = len(TOPICS)) -> list:
        hits = []
        for first in range(0, most, 8):  # which pairs are judged is drawn
            topics = TOPICS[first : min(first + 8, most)]
            hits += teach(server, topics, headers={"x-cacheproxy-namespace": namespace})
            if judged_by():
                break
        return hits

    for judge in ("judge-1", "judge-2"):
        if judge != "judge-1":
            reload(f'judge = "{judge}"')
        taught_in(f"of {judge}")
        assert judged_by() == {judge}

    reload('judge = "none"')
    assert taught_in("nobody's", 10) == []
    assert judged_by() == set()
    told = server.admin.get("/admin/thresholds").json()["chat"]["models"]["gpt-test"]
    assert any("without a judge" in one["story"] for one in told["namespaces"])

    # An operator's own threshold serves at once, and without evidence.
    reload("threshold = 0.8")
    assert len(taught_in("the operator's", 10)) > 5
    assert judged_by() == set()
    assert server.metric("semantic_certified") == 0
    reload('judge = "none"')
    assert taught_in("nobody's again", 8) == []


def test_a_share_of_nothing_buys_no_judgement(start):
    server, upstream = start(is_right, "--chat-learning-share", "0")

    teach(server, TOPICS[:10])

    assert not any(asked.judged_pair for asked in upstream.asked)


def test_a_judge_sees_the_conversation_before_the_question(start):
    server, upstream = start(is_right)
    for form in FORMS:
        for topic in TOPICS[:8]:
            body = {
                "model": "gpt-test",
                "messages": [
                    {"role": "system", "content": "Answer in one sentence."},
                    {"role": "user", "content": form.format(topic)},
                ],
            }
            assert server.http.post("/v1/chat/completions", json=body).status_code == 200
        settled(server)
    pairs = [pair for asked in upstream.asked if (pair := asked.judged_pair)]
    own = [pair for pair in pairs if pair["question"].startswith("system: ")]
    assert own
    assert own[0]["question"].startswith("system: Answer in one sentence.\nuser: How ")


def test_a_judge_can_be_tried_on_labelled_pairs(tmp_path):
    upstream = Upstream()

    async def misses_one_in_ten(exchange):
        pair = json.loads(exchange.asked.question)
        is_fine = pair["answer"].startswith("right") or pair["question"].endswith("7")
        said = completion(exchange.asked, "ACCEPT" if is_fine else "reject.")
        await exchange.answer(200, json.dumps(said).encode())

    upstream.always = misses_one_in_ten
    rows = [{"question": f"Is it {i}", "answer": "wrong", "label": 0} for i in range(200)]
    rows += [{"question": f"Is it {i}", "answer": "right", "label": 1} for i in range(50)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    done = run("judge", str(path), "--upstream", upstream.url, "--chat-judge", "judge-1")

    assert done.returncode == 0, done.stderr
    assert "rejected 180 of 200 wrong answers: at least 85.8%" in done.stdout
    assert "rejected 0 of 50 right answers" in done.stdout
    upstream.stop()
