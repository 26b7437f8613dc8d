"""Questions whose answer is told by their group: replayed, the promise is kept."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.answers import read_answers
from cacheproxy.evaluation.chat import make_chat_traffic, make_judged_traffic
from cacheproxy.evaluation.command import Wanted, run
from cacheproxy.evaluation.judged_replay import JudgedReplayer
from cacheproxy.evaluation.replay import find_near
from cacheproxy.evaluation.simulated_judge import SimulatedJudge
from cacheproxy.evaluation.study import Encoders
from cacheproxy.evaluation.traffic import draw_requests, read_texts
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.probes.static import StaticProbe
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.judged.question_pair import rarity_of


def wanted(*files, **more):
    nothing = dict.fromkeys(("report", "json_path", "work"))
    return Wanted(files=files, then=(), documents=(), seed=1, is_chat=True, **{**nothing, **more})


def test_groups_are_joined_over_pairs_and_clusters(tmp_path):
    rows = [
        {"text": "a", "cluster": 1},
        {"text": "b", "cluster": 1},
        {"a": "b", "b": "c", "label": 1},
        {"a": "c", "b": "d", "label": 0},
        {"text": "e"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    texts = read_texts([path])

    groups = texts.joined_groups()

    of_text = dict(reversed(list(zip(texts.texts, groups, strict=True))))
    assert of_text["a"] == of_text["b"] == of_text["c"]
    assert len({of_text["a"], of_text["d"], of_text["e"]}) == 3


def test_what_has_another_context_is_nobodys_neighbour():
    probes = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    near, scores = find_near(probes, np.array([0, 1, 0, 1]))

    assert near[0, 0] == 2
    assert scores[0, 0] == 0
    assert (scores[:, 1:] == -2).all()


@pytest.mark.parametrize("name", ["clusters_qqp_dev", "pairs_paws_dev", "pairs_negation_dev"])
def test_wrong_ones_among_hits_are_within_the_promise(installed, shared_rows, tmp_path, name):
    rows = shared_rows(f"{name}.jsonl")[:150]
    path, found = tmp_path / "questions.jsonl", tmp_path / "found.json"
    path.write_text("\n".join(json.dumps(row) for row in rows))

    text = run(wanted(path, requests=3_000, json_path=found), Settings(), installed)

    ours = json.loads(found.read_text())["policies"][0]
    assert "another group" in text
    assert ours["error"] <= 0.02 or ours["wrong"] <= 3
    if name == "clusters_qqp_dev":
        assert ours["hits"] > 100


def test_texts_that_do_not_say_what_has_one_answer_are_refused(installed, tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("one question\nanother question\n")

    with pytest.raises(ConfigError, match="groups or pairs"):
        run(wanted(path, requests=None), Settings(), installed)


@pytest.fixture(scope="module")
def clusters(installed, shared_rows, tmp_path_factory):
    """Return 10,000 requests for paraphrase groups, as `cacheproxy eval --chat` draws them."""
    path = tmp_path_factory.mktemp("clusters") / "questions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in shared_rows("clusters_qqp_dev.jsonl")))
    texts = read_texts([path])
    requests = draw_requests(texts, 10_000, 1)
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    traffic = make_chat_traffic(
        requests,
        tokenizer.encode([request.text for request in requests]),
        texts,
        Encoders(
            OnnxEncoder(installed.graph, device=installed.device).encode,
            StaticProbe(installed.static_probe),
            installed.fingerprint,
        ),
        min_tokens=4,
        progress=lambda items, what: items,
    )
    return make_judged_traffic(requests, texts, traffic, rarity_of(tokenizer.vocabulary()))


@pytest.mark.parametrize("rates", [(0.95, 0.02), (0.9, 0.05)])
def test_before_an_upstream_that_rewords_a_judge_opens_the_tier_and_the_promise_is_kept(
    clusters, rates
):
    found = JudgedReplayer(clusters, SimulatedJudge(*rates), shares=(0.2, 0.06), seed=1).run()

    assert found.hits > 100
    assert found.error <= 0.02
    spent = found.allowance.spent / found.allowance.clients_cost
    assert 0 < spent <= 0.201


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("accepts", "accepts 100% of wrong answers"),
        ("rejects", "of the upstream's own fresh answers"),
        ("random", "the judge"),
        ("prose", "neither ACCEPT nor REJECT"),
        ("obeys", "follows instructions"),
    ],
)
def test_a_useless_judge_opens_nothing_and_the_reason_is_told(clusters, manner, reason):
    judge = SimulatedJudge(manner=manner, injected=0.1)
    found = JudgedReplayer(clusters, judge, shares=(0.2, 0.06), seed=1).run()

    assert found.hits == 0
    assert reason in found.as_text()


def test_a_judge_that_cannot_be_reached_costs_nothing_and_opens_nothing(clusters):
    found = JudgedReplayer(clusters, SimulatedJudge(manner="unreachable"), seed=1).run()

    assert found.hits == found.allowance.spent == 0


def test_the_promise_is_kept_where_a_reference_changes_the_judges_rates(clusters):
    """Controls have references, too: were they judged without one, f would be taken for 2 %."""
    judge = SimulatedJudge(0.95, 0.15, referred=(0.97, 0.02))
    found = JudgedReplayer(clusters, judge, shares=(0.3, 0.06), seed=1).run()

    assert found.hits > 100
    assert found.error <= 0.02
    assert found.standing is not None
    assert found.standing.false_rejects < 0.015
    assert found.allowance.requests["reference"] > 0


def test_a_judge_that_turns_bad_half_way_is_noticed_before_many_more_are_wrong(clusters):
    judge = SimulatedJudge(manner="turns")
    found = JudgedReplayer(clusters, judge, shares=(0.2, 0.06), seed=1).run()

    assert found.opened is not None
    assert found.alarms["judge"] == 1
    assert found.is_wrong[len(found.is_wrong) // 2 :].sum() < 50
    assert found.standing is not None
    assert found.standing.threshold is None


@pytest.mark.parametrize("judge", ["0.95", "0.95,2", "a,b", "0.9,0.1,friendly"])
def test_what_is_no_judge_is_refused(installed, tmp_path, judge):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"text": "a question", "cluster": 1}\n')

    with pytest.raises(ConfigError, match="--judge"):
        run(wanted(path, requests=10, judge=judge), Settings(), installed)


def test_a_judge_needs_chat(installed, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("a question\n")

    with pytest.raises(ConfigError, match="--chat"):
        run(replace(wanted(path, requests=10, judge="1,0"), is_chat=False), Settings(), installed)


def write_lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_an_upstream_words_every_answer_from_a_file(installed, shared_rows, tmp_path):
    rows = shared_rows("clusters_qqp_dev.jsonl")[:300]
    questions = write_lines(tmp_path / "questions.jsonl", rows)
    worded = write_lines(tmp_path / "worded.jsonl", shared_rows("answers_llm_dev.jsonl"))
    same = write_lines(tmp_path / "same.jsonl", [{"answers": ["Look it up in the manual."]}])

    def labels_without_a_judge(answers):
        told = run(
            wanted(questions, requests=1_500, judge="0.95,0.02", answers=answers),
            Settings(),
            installed,
        )
        (line,) = [line for line in told.splitlines() if line.startswith("labels without it")]
        return int(line.split()[3].replace(",", "").rstrip(","))

    assert labels_without_a_judge(None) == 0
    # The answers to a group are the same always, or where chance takes one of its six twice.
    assert labels_without_a_judge(same) > 5
    assert labels_without_a_judge(worded) > 5


def test_answers_may_name_their_groups(tmp_path):
    texts = read_texts(
        [
            write_lines(
                tmp_path / "questions.jsonl",
                [{"text": "a", "cluster": "x"}, {"text": "b", "cluster": "y"}],
            )
        ]
    )
    rows = [{"answers": ["of y"], "cluster": "y"}, {"answers": {"m": "of x"}, "cluster": "x"}]

    assert read_answers(write_lines(tmp_path / "all.jsonl", rows), texts) == [["of x"], ["of y"]]
    with pytest.raises(ConfigError, match="no answer to 'a'"):
        read_answers(write_lines(tmp_path / "one.jsonl", rows[:1]), texts)


@pytest.mark.parametrize("line", ["", "[1]", '{"answers": []}', '{"answers": [1]}', "{"])
def test_what_holds_no_answers_is_refused(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    path.write_text(line)
    texts = read_texts([write_lines(tmp_path / "q.jsonl", [{"text": "a", "cluster": 1}])])

    with pytest.raises(ConfigError, match=r"answers\.jsonl"):
        read_answers(path, texts)
