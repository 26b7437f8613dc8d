"""The chat tier before an upstream that words every answer anew, over HTTP, streamed and not.

At a reduced size: a laxer promise than the default, so that some hundred labels open the tier. The
whole: CACHEPROXY_TEST_CHAT_REQUESTS=30000, with the default promise and no setting but the
upstream's URL.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

from chatting import ask, check_stream, status_of, text_of, told
from rewording_llm import RewordingModel
from server_process import Server
from topics import settled
from upstream import Upstream

from cacheproxy.evaluation.traffic import draw_requests, read_texts

REQUESTS = int(os.environ.get("CACHEPROXY_TEST_CHAT_REQUESTS", "2500"))
IS_WHOLE = REQUESTS >= 15_000
RATES = os.environ.get("CACHEPROXY_TEST_CHAT_JUDGE", "0.95,0.02")
AT_ONCE, _PART = 4, 100


def answer_of(response, *, is_stream: bool) -> str:
    if not is_stream:
        return text_of(response)
    return told(check_stream(response.content, with_usage=False))


def test_it_opens_before_a_rewording_model_and_keeps_its_promise(model_home, shared_rows, tmp_path):
    answers = [row["answers"] for row in shared_rows("answers_llm_dev.jsonl")]
    rows = shared_rows("clusters_qqp_dev.jsonl")
    path = tmp_path / "questions.jsonl"
    clusters = list(dict.fromkeys(row["cluster"] for row in rows))
    few = set(clusters if IS_WHOLE else clusters[:150])
    kept = [row for row in rows if row["cluster"] in few]
    path.write_text("\n".join(map(json.dumps, kept)))
    texts = read_texts([path])
    requests = draw_requests(texts, REQUESTS, seed=1)
    sensitivity, false_rejects = map(float, RATES.split(","))
    model = RewordingModel(
        requests, texts, answers, sensitivity=sensitivity, false_rejects=false_rejects, seed=1
    )
    upstream = Upstream()
    upstream.always = model
    lax = () if IS_WHOLE else ("--chat-max-error", "0.1", "--chat-learning-share", "0.5")
    server = Server(
        model_home,
        "memory://",
        *("--drain-s", "0", "--admin-port", "0", "--upstream", upstream.url, *lax),
    )

    def one(number: int) -> tuple[bool, bool]:
        """Return whether it was a semantic hit, and whether it was right."""
        question, is_stream = requests[number].text, number % 3 == 0
        response = ask(server, question, stream=is_stream)
        assert response.status_code == 200
        if "detail=semantic" not in status_of(response):
            return False, True
        return True, model.is_right(question, answer_of(response, is_stream=is_stream))

    outcomes = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for start in range(0, REQUESTS, _PART):
            outcomes += threads.map(one, range(start, min(start + _PART, REQUESTS)))
            settled(server)  # a real model takes seconds for an answer, this one a millisecond

    hits = [is_right for is_hit, is_right in outcomes if is_hit]
    opened = next((n for n, (is_hit, _) in enumerate(outcomes) if is_hit), None)
    chat = server.admin.get("/admin/thresholds").json()["chat"]
    told_of = chat["models"]["gpt-test"]
    print(
        f"requests {REQUESTS}, opened at {opened}, hits {len(hits)}, wrong {hits.count(False)},"
        f" judged {model.judged}, cost {told_of['own_cost_share']:.3f},"
        f" {told_of['namespaces'][0]['story']}"
    )
    print(f"right answers accepted and rejected by the judge: {model.right}")
    server.stop()
    upstream.stop()
    assert len(hits) > 30
    assert hits.count(False) <= chat["max_error"] * len(hits)
    assert told_of["own_cost_share"] <= (0.1 if IS_WHOLE else 0.5)
    # What is judged a second time has another answer to the same question beside it: pairs of the
    # traffic and controls alike.
    judged = [pair for pair in model.later_opinions if model.group_of(pair["question"]) is not None]
    assert judged
    for pair in judged:
        assert model.is_right(pair["question"], pair["reference"])
        assert (pair["question"], pair["reference"]) in model.given
    if IS_WHOLE:
        rates = {kind: no / (yes + no) for kind, (yes, no) in model.right.items()}
        assert abs(rates["cached"] - rates["own"]) < 0.01
