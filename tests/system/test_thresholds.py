"""A threshold that is earned by a real server, and what is told of it."""

import json

import pytest
from asking import ask, run, wait_until

from cacheproxy.modelkit.manifest import models_folder

MIN_SIMILARITY = 0.9
PROMISE = ("--semantic-max-error", "0.2", "--semantic-min-similarity", str(MIN_SIMILARITY))


@pytest.fixture
def questions():
    """Fifty questions that have little to do with each other."""
    lines = (models_folder() / "calibration" / "texts.jsonl").read_text().splitlines()
    texts = [row["text"] for row in map(json.loads, lines) if row["source"] == "own"]
    return [text.rstrip("?") for text in texts if 30 < len(text) < 70][:50]


@pytest.fixture
def taught(start_server, questions):
    """A server that has seen many questions in two wordings, and has opened by them."""
    server = start_server("--admin-port", "0", "--semantic-mode", "on", *PROMISE)
    for wording in ("{}?", "{} please"):
        for question in questions:
            ask(server, wording.format(question))
        wait_until(lambda: server.metric("writeback_queue_entries") == 0)
    return server


def standing(semantic):
    (namespace,) = semantic["namespaces"]
    (found,) = [
        each for each in namespace["thresholds"] if each["min_similarity"] == MIN_SIMILARITY
    ]
    return namespace, found


def test_evidence_opens_the_tier_and_is_told_alike_everywhere(taught, questions):
    assert "detail=semantic" in ask(taught, f"{questions[0]} , please")

    answer = taught.admin.get("/admin/thresholds")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["mode"], told["max_error"], told["min_similarity"]) == ("on", 0.2, MIN_SIMILARITY)
    namespace, found = standing(told)
    assert (namespace["tenant"], namespace["namespace"]) == ("default", "default")
    assert namespace["hits"] >= 1
    assert namespace["spared_s"] > 0
    assert found["state"] == "open"
    assert found["pairs_needed"] == 0
    assert found["labels"] >= 30
    assert found["error_estimate"] <= found["error_upper_bound"] <= 0.2
    assert taught.metric("semantic_threshold") == found["threshold"]
    assert taught.metric("semantic_error_upper_bound") == pytest.approx(
        found["error_upper_bound"], abs=1e-4
    )


def test_stats_shows_the_evidence_of_a_store_without_a_running_server(taught, model_home, tmp_path):
    assert taught.stop() == 0
    place = ("--home", str(model_home), "--store", f"sqlite:///{tmp_path / 'cache.sqlite'}")
    figures = json.loads(run("stats", *place, *PROMISE, "--json").stdout)
    _, kept = standing(figures["semantic"])
    assert kept["state"] == "open"
    assert kept["error_upper_bound"] <= 0.2
    told = run("stats", *place, *PROMISE).stdout
    assert "cosine 0.9   open" in told, told
    assert "cosine 0.98" in told
