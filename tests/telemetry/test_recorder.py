"""The recorder alone: it never blocks, never fails, and what it drops is counted."""

import json
import threading

import pytest

from cacheproxy.telemetry import recorder as recorder_module
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder

BODY = b'{"input": "a text", "model": "m"}'


def make_recorder(path, metrics=None, **changes):
    settings = {"with_texts": False, "max_bytes": 2**20} | changes
    return Recorder(path, metrics=metrics or Metrics(), **settings)


def count(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"cacheproxy_{name}_total", labels) or 0


def record(path, bodies, **more):
    metrics = Metrics()
    recorder = make_recorder(path, metrics, **more)
    recorder.start()
    for body in bodies:
        recorder.put("embeddings", "00", body)
    recorder.stop()
    return metrics


def hashes(path):
    return [json.loads(line)["hashes"] for line in path.read_text().splitlines()]


def test_what_is_put_is_written_in_its_order(tmp_path):
    path = tmp_path / "log" / "requests.jsonl"
    bodies = [json.dumps({"input": f"text {i % 10}"}).encode() for i in range(1_000)]

    metrics = record(path, bodies)

    written = hashes(path)
    assert len(written) == count(metrics, "recorded_requests") == 1_000
    assert written[:10] == written[10:20]
    assert len({digest for (digest,) in written}) == 10


def test_a_restart_gives_a_text_the_same_hash_and_another_file_another(tmp_path):
    for _ in range(2):
        record(tmp_path / "a", [BODY])
    record(tmp_path / "b", [BODY])

    first, second = hashes(tmp_path / "a")
    assert first == second
    assert hashes(tmp_path / "b") != [first]


def test_what_cannot_be_read_is_counted_and_not_written(tmp_path):
    bodies = [
        b"{",
        b"[1]",
        b'{"inputs": 3}',
        b'{"inputs": {"sentences": 3}}',
        b"\xff",
        b"[" * 100_000,
        BODY,
    ]

    metrics = record(tmp_path / "a", bodies)

    assert len(hashes(tmp_path / "a")) == 1
    assert count(metrics, "unrecorded_requests", reason="unreadable") == 6


def test_a_file_that_is_full_makes_room_for_a_new_one(tmp_path):
    path = tmp_path / "a"
    for _ in range(3):
        record(path, [BODY] * 300, max_bytes=50_000)

    assert path.exists()
    assert (tmp_path / "a.1").stat().st_size >= 50_000
    names = {path.name for path in tmp_path.iterdir()}
    assert names - {"a.lock"} == {"a", "a.1", "a.key"}


def test_recorders_of_several_workers_write_whole_lines_into_one_file(tmp_path):
    path = tmp_path / "a"
    threads = [threading.Thread(target=record, args=(path, [BODY] * 800)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    written = hashes(path)
    assert len(written) == 3_200
    assert len({digest for (digest,) in written}) == 1


def test_what_does_not_fit_in_the_queue_is_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "_MOST_QUEUED_BYTES", 10 * len(BODY))
    metrics = Metrics()
    recorder = make_recorder(tmp_path / "a", metrics)  # not started: nobody takes anything
    for _ in range(25):
        recorder.put("embeddings", "00", BODY)

    assert count(metrics, "unrecorded_requests", reason="full") == 15


def test_an_unwritable_disk_loses_log_lines_but_fails_no_request(tmp_path, caplog):
    metrics = Metrics()
    recorder = make_recorder(tmp_path / "a", metrics)
    recorder.start()
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()  # what was a file is now something that cannot be appended to
    for _ in range(500):
        recorder.put("embeddings", "00", BODY)
    recorder.stop()

    assert count(metrics, "unrecorded_requests", reason="error") == 500
    assert len([line for line in caplog.messages if "could not be recorded" in line]) == 1


@pytest.mark.parametrize(
    ("body", "characters", "tokens"),
    [
        (b'{"input": "abc"}', [3], [None]),
        (b'{"input": ["abc", "de"]}', [3, 2], [None, None]),
        (b'{"input": [1, 2, 3]}', [None], [3]),
        (b'{"input": [[1, 2], [3]]}', [None, None], [2, 1]),
        (b'{"texts": ["abc"]}', [3], [None]),
        (b'{"inputs": "abc"}', [3], [None]),
        (b'{"inputs": {"source_sentence": "abc", "sentences": ["a"]}}', [3, 1], [None, None]),
        (b'{"messages": [{"role": "user", "content": "abc"}], "stream": true}', [33], [None]),
    ],
)
def test_inputs_of_every_form_are_understood(tmp_path, body, characters, tokens):
    record(tmp_path / "a", [body])

    (line,) = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert (line["characters"], line["tokens"]) == (characters, tokens)
    assert line["streamed"] == (b"stream" in body)
