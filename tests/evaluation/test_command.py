"""`cacheproxy eval` as a user runs it, with the real model."""

import json
import subprocess
import sys

import pytest

TEXTS = [
    f"{question} {thing} {rest}"
    for question in ("how do I reset", "where can I find", "what is the price of")
    for thing in ("my password", "the invoice", "a new card", "the user manual", "that phone")
    for rest in ("on the website?", "in the app?", "when I am abroad?", "without an account?")
]
FAR_APART = [
    "how do I reset my password on the website?",
    "the river floods its banks every spring",
    "bake the bread for forty minutes at high heat",
    "which planet has the most moons around it?",
    "the striker scored twice in the second half",
    "interest rates were left unchanged by the bank",
    "a whale song can be heard across an ocean",
    "the violin has four strings and a wooden body",
    "plant the tomatoes after the last night frost",
    "the train to the airport leaves at half past six",
]


def run_eval(model_home, *arguments):
    command = [sys.executable, "-m", "cacheproxy", "eval", "--home", str(model_home), *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_a_study_tells_what_each_policy_would_do(model_home, log, tmp_path):
    report, figures, work = tmp_path / "page.html", tmp_path / "figures.json", tmp_path / "work"
    arguments = (log, "--requests", "600", "--report", report, "--json", figures, "--work", work)
    first = run_eval(model_home, *arguments)
    assert first.returncode == 0, first.stderr
    assert "earned" in first.stdout
    assert "static 0.8" in first.stdout

    found = json.loads(figures.read_text())
    assert found["requests"] == 600
    names = [policy["policy"] for policy in found["policies"]]
    assert names[0] == "earned"
    assert "logistic an entry" in names
    assert all(0 <= policy["error"] <= 1 for policy in found["policies"])
    page = report.read_text()
    assert page.count("<svg") == 4
    assert "http://" not in page.split("<svg")[0]

    kept = sorted(path.name for path in work.iterdir())
    again = run_eval(model_home, *arguments)
    assert again.stdout == first.stdout
    assert sorted(path.name for path in work.iterdir()) == kept


def test_labels_and_documents_add_a_column_and_a_table(model_home, tmp_path):
    pairs, report = tmp_path / "pairs.jsonl", tmp_path / "page.html"
    rows = [{"a": text, "b": text.replace("my", "your"), "label": 0} for text in TEXTS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_eval(
        model_home, pairs, "--documents", pairs, "--requests", "300", "--report", report
    )

    assert done.returncode == 0, done.stderr
    header, *policies = done.stdout.splitlines()[1:]
    assert header.split()[-1] == "different"
    assert int(policies[1].split()[-1]) > 0
    assert "of the first ten found" in done.stdout
    assert "What a similarity means to a retriever" in report.read_text()


def test_without_near_texts_a_message_replaces_the_table(model_home, tmp_path):
    texts, report = tmp_path / "texts.txt", tmp_path / "page.html"
    texts.write_text("".join(f"{text}\n" for text in FAR_APART))
    done = run_eval(model_home, texts, "--documents", texts, "--report", report)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "--documents: no two texts were found at a cosine of 0.85 or more"
    )
    assert "of the first ten found" not in done.stdout
    page = report.read_text()
    assert "<p>No two texts were found at a cosine of 0.85 or more.</p>" in page
    assert page.count("<table") == 1


def test_a_study_without_documents_says_nothing_of_a_retriever(model_home, tmp_path):
    texts, report = tmp_path / "texts.txt", tmp_path / "page.html"
    texts.write_text("".join(f"{text}\n" for text in FAR_APART))
    done = run_eval(model_home, texts, "--report", report)

    assert done.returncode == 0, done.stderr
    assert "retriever" not in done.stdout + report.read_text()


def test_a_missing_file_is_told_in_one_line(model_home, tmp_path):
    done = run_eval(model_home, tmp_path / "missing")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_documents_of_a_retriever_say_nothing_of_a_chat_model(model_home, log):
    done = run_eval(model_home, log, "--chat", "--documents", log)

    assert done.returncode != 0
    assert "--documents says nothing of a chat model" in done.stderr
