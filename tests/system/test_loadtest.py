"""The load tester against the real server: its smoke scenario, and a start of its own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from load_command import loadtest, read_json, write_scenario


def test_smoke_keeps_its_promises_and_agrees_with_the_server(model_home, tmp_path):
    done = loadtest(
        *("run", "--serve", "--home", model_home, "--scenario", "smoke", "--seconds", "6"),
        *("--json", tmp_path / "smoke.json", "--report", tmp_path / "smoke.html"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    told = read_json(tmp_path / "smoke.json")
    assert all(promise["is_kept"] for promise in told["promises"])
    (phase,) = told["phases"]
    assert len(phase["counts"]) >= 6
    assert phase["figures"]["memory_mb"] > 50
    questions, batches = phase["streams"]
    # What was known beforehand is what was found: nothing else can hit, and all of it does.
    assert set(questions["kinds"]["repeat"]) <= {"hot", "exact"}
    assert set(questions["kinds"]["unseen"]) <= {"miss", "semantic"}
    found = batches["texts"]
    assert found["hot"] + found.get("exact", 0) == batches["expected"]["repeat"], found
    page = (tmp_path / "smoke.html").read_text()
    assert page.count("<figure data-plot=") >= 8
    assert " src=" not in page


def test_a_restart_in_a_scenario_comes_back_with_what_was_stored(model_home, tmp_path):
    streams = '[[phases.streams]]\nname = "s"\nper_s = 40\nmix = { repeat = 1.0 }'
    again = f'[[phases]]\nname = "again"\nseconds = 1\nrestart = true\n{streams}'
    path = write_scenario(tmp_path, f"{streams}\n{again}", more="known_texts = 20")

    done = loadtest(
        *("run", "--serve", "--home", model_home, "--scenario", path),
        *("--json", tmp_path / "a.json"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    first, second = read_json(tmp_path / "a.json")["phases"]
    assert set(first["streams"][0]["texts"]) == {"hot"}
    assert set(second["streams"][0]["texts"]) == {"hot", "exact"}
    assert second["figures"]["ready_s"] > 0


def test_somebody_else_asking_is_a_difference(server, tmp_path):
    streams = '[[phases.streams]]\nname = "s"\nper_s = 20\nmix = { unseen = 1.0 }'
    path = write_scenario(tmp_path, streams, seconds=6)
    arguments = ("run", "--url", server.url, "--scenario", path)
    before = server.metric("requests_total")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(loadtest, *arguments)
        while server.metric("requests_total") < before + 3:
            assert not running.done()
        server.client().embeddings.create(model="all-MiniLM-L6-v2", input="somebody else's")
        done = running.result()

    assert done.returncode == 1
    assert "DIFFERENCE only: embeddings: answers 200" in done.stdout


@pytest.mark.parametrize("route", ["/v1", ""])
def test_a_url_may_end_with_v1_or_not(server, tmp_path, route):
    streams = '[[phases.streams]]\nname = "s"\nper_s = 20\nmix = { unseen = 1.0 }'

    done = loadtest(
        *("run", "--url", f"{server.url}{route}"),
        # Texts of its own: those of another test would be hits.
        *("--scenario", write_scenario(tmp_path, streams, more=f"seed = {10 + len(route)}")),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "clients and server agree" in done.stdout


@pytest.mark.parametrize("streamed", ["false", "true"])
def test_chat_through_the_proxy_is_counted_alike_on_both_sides(chat, tmp_path, streamed):
    streams = (
        '[[phases.streams]]\nname = "s"\nroute = "chat"\nper_s = 30\n'
        f"streamed = {streamed}\nmix = {{ repeat = 0.5, unseen = 0.5 }}"
    )
    path = write_scenario(tmp_path, streams, more=f"known_texts = 10\nseed = {len(streamed)}")

    done = loadtest(
        *("run", "--url", chat.url, "--model", "gpt-test", "--scenario", path),
        *("--json", tmp_path / "a.json"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "clients and server agree" in done.stdout
    (stream,) = read_json(tmp_path / "a.json")["phases"][0]["streams"]
    assert set(stream["kinds"]["repeat"]) == {"hot"}
    assert set(stream["kinds"]["unseen"]) == {"miss"}
