"""What a proxy records, and its replay: the real server, the real tool."""

import json
import os
import stat
import subprocess
import sys

import pytest
from load_command import loadtest, read_json
from server_process import Server

MODEL = "all-MiniLM-L6-v2"
SMALL_MODEL = "paraphrase-MiniLM-L3-v2"
TEXT = "the launch is on the ninth of May"
IDS = [101, 2054, 2003, 1037, 9207, 102]  # the model's own: with its special tokens


def cacheproxy(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cacheproxy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(server, body, path="/v1/embeddings", **headers):
    response = server.http.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response


def traffic(server):
    """Ask for something of every kind; return how many requests that was."""
    for _ in range(3):  # the third one is answered without being read
        ask(server, {"model": MODEL, "input": TEXT, "encoding_format": "base64"})
    ask(server, {"model": MODEL, "input": [TEXT, "another text", "a third one"]})
    ask(server, {"model": MODEL, "input": IDS})
    ask(server, {"model": MODEL, "input": TEXT}, **{"x-cacheproxy-namespace": "other"})
    ask(server, {"texts": [TEXT]}, path="/embed")
    return 7


@pytest.fixture
def record(start_server, tmp_path):
    """Return a function that records some traffic, and returns the file and its lines."""

    def record(*flags):
        path = tmp_path / "requests.jsonl"
        server = start_server("--record-path", str(path), *flags)
        count = traffic(server)
        assert server.stop() == 0, server.log
        lines = read_lines(path)
        assert len(lines) == count
        return path, lines

    return record


def test_hashes_lengths_and_times_are_recorded_and_no_text(record):
    path, lines = record()

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(f"{path}.key").st_mode) == 0o600
    assert "launch" not in path.read_text()
    first, *_ = lines
    assert first["characters"] == [len(TEXT)]
    assert (first["route"], first["model"], first["form"]) == ("embeddings", MODEL, "base64")
    assert [line["hashes"][0] for line in lines[:3]] == [first["hashes"][0]] * 3
    assert len(lines[3]["hashes"]) == 3
    assert lines[3]["hashes"][0] == first["hashes"][0] != lines[3]["hashes"][1]
    assert (lines[4]["characters"], lines[4]["tokens"]) == ([None], [len(IDS)])
    assert lines[5]["hashes"] == first["hashes"]
    assert lines[5]["namespace"] != first["namespace"]
    assert lines[6]["route"] == "embed"
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_texts_are_recorded_when_asked_for(record):
    _, lines = record("--record-texts")

    assert lines[0]["texts"] == [TEXT]
    assert lines[4]["texts"] == [IDS]


@pytest.mark.parametrize("flags", [(), ("--record-texts",)])
def test_a_replay_repeats_what_was_repeated(record, start_server, tmp_path, flags):
    path, _ = record(*flags)
    server = start_server(store="memory://")

    done = loadtest(
        "replay", path, "--url", server.url, "--speed", "0.2", "--json", tmp_path / "a.json"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "clients and server agree" in done.stdout
    (phase,) = read_json(tmp_path / "a.json")["phases"]
    texts = sum(sum(stream["texts"].values()) for stream in phase["streams"])
    inferred = server.inferred()
    assert texts == 9
    # The text, once in each namespace; two more; the token ids.
    assert inferred == 5


def test_a_path_that_cannot_be_written_is_told_at_the_start(model_home, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(AssertionError, match=r"record\.path"):
        Server(model_home, "memory://", "--record-path", str(tmp_path / "folder"))


@pytest.mark.parametrize("flags", [(), ("--record-texts",)])
def test_chat_is_recorded_and_replayed(model_home, upstream, tmp_path, flags):
    path = tmp_path / "requests.jsonl"
    first = Server(
        *(model_home, "memory://", "--drain-s", "0", "--upstream", upstream.url),
        *("--record-path", str(path), *flags),
    )
    messages = [{"role": "user", "content": TEXT}]
    for streamed in (False, True, False):
        body = {"model": "gpt-test", "messages": messages, "stream": streamed}
        ask(first, body, path="/v1/chat/completions")
    assert first.stop() == 0, first.log
    lines = read_lines(path)
    assert [line["streamed"] for line in lines] == [False, True, False]
    assert len({line["hashes"][0] for line in lines}) == 1
    asked = len(upstream)

    second = Server(model_home, "memory://", "--drain-s", "0", "--upstream", upstream.url)
    done = loadtest("replay", path, "--url", second.url, "--model", "gpt-test", "--speed", "0.01")
    second.stop()

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(upstream) == asked + 1
    last = [asked for asked in upstream.asked if asked.judged_pair is None][-1]
    assert (last.body["messages"] == messages) == bool(flags)


def test_what_was_asked_for_most_warms_up_a_server_with_another_model(
    start_server, small_model_home, tmp_path
):
    path, asked = tmp_path / "requests.jsonl", []
    old = start_server("--record-path", str(path), "--record-texts")
    for i in range(40):
        asked.append(f"question {i} of the old model's users")
        for _ in range(3 if i < 30 else 1):
            ask(old, {"model": MODEL, "input": asked[-1:]}, **{"x-cacheproxy-namespace": "docs"})
    traffic(old)  # other namespaces, and token ids
    assert old.stop() == 0, old.log
    new = start_server("--model", SMALL_MODEL, store="memory://")
    flags = "--namespace", "docs", "--most", "30", "--url", new.url, "--model", SMALL_MODEL

    done = cacheproxy("warm", "--from", path, *flags)

    assert done.returncode == 0, done.stderr
    assert "warm: 30 rows" in done.stderr
    inferred = new.inferred()
    for texts in (asked[:30], asked[30:]):
        ask(new, {"model": SMALL_MODEL, "input": texts}, **{"x-cacheproxy-namespace": "docs"})
        inferred += 0 if texts[0] == asked[0] else 10
        assert new.inferred() == inferred


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--from", "redis://127.0.0.1:6379"], "a store has hashes and no texts"),
        (["--from", "nowhere.jsonl"], "nowhere.jsonl.key"),
        ([], "Name files, or --from"),
    ],
)
def test_what_cannot_be_asked_for_again_is_told(tmp_path, given, said):
    done = cacheproxy("warm", *given, "--url", "http://127.0.0.1:1")

    assert done.returncode == 2
    assert said in done.stderr


def test_a_recording_without_texts_warms_up_nothing(record):
    path, _ = record()

    done = cacheproxy("warm", "--from", path, "--url", "http://127.0.0.1:1", "--model", MODEL)

    assert done.returncode == 2
    assert "has to run with record.texts" in done.stderr
