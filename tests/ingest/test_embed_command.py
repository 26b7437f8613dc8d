"""`cacheproxy embed` as it is run: files in, files out, killed and taken up again."""

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer

COUNTED = Path(__file__).parents[1] / "support" / "counted_embed.py"
ROWS = 900
BATCH_TOKENS = 2_048
KILLS, FEW_KILLS = 10, 2


def command(log: Path, home: Path, *arguments: object) -> list[str]:
    given = ["embed", "--home", home, *arguments]
    return [sys.executable, str(COUNTED), str(log), *map(str, given)]


def run(log: Path, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(log, home, *arguments), capture_output=True, text=True, timeout=300
    )


def read_log(log: Path) -> list[tuple[int, str]]:
    """Return the tokens and the hash of each text that a run has inferred."""
    if not log.exists():
        return []
    # The last line may be torn by a kill.
    lines = log.read_bytes().decode().rsplit("\n", 1)[0].splitlines()
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def kill_when(process: subprocess.Popen[str], log: Path, texts: int) -> bool:
    """Kill a run once it has inferred so many texts; return False if it ended before."""
    deadline = time.monotonic() + 240
    while process.poll() is None:
        assert time.monotonic() < deadline
        if log.exists() and log.read_bytes().count(b"\n") >= texts:
            process.kill()
            process.wait(60)
            return True
        time.sleep(0.002)
    return False


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """900 texts, all different, of 3 to 40 words, with ids, and rows that have no text."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    draw = random.Random(18)  # noqa: S311
    words = ["cache", "vector", "index", "password", "search", "reset", "how", "the", "of", "to"]
    with path.open("w") as file:
        for i in range(ROWS):
            text = f"{i} " + " ".join(draw.choices(words, k=draw.choice((3, 5, 8, 40))))
            row = {"key": f"k{i}", "body": None if i % 199 == 5 else text}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def options(corpus):
    return corpus, "--field", "body", "--id", "key", "--batch-tokens", BATCH_TOKENS


@pytest.fixture(scope="module")
def uninterrupted(corpus, options, model_home, tmp_path_factory):
    """What a run without a kill writes, by ending."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for ending in ("parquet", "npy", "jsonl"):
        done = run(folder / "log", model_home, *options, "--output", folder / f"v.{ending}")
        assert done.returncode == 65, done.stderr
    return folder


def run_with_kills(folder: Path, home: Path, kills: int, *arguments: object, stdin=None) -> int:
    """Run a command until it ends, killed at so many moments; return the texts that were inferred.

    Each kill may cost a batch, and nothing else is inferred twice.
    """
    draw = random.Random(1)  # noqa: S311
    before, killed = Counter(), 0
    while True:
        log = folder / f"log-{killed}"
        with (
            open(stdin or os.devnull) as given,
            subprocess.Popen(
                command(log, home, *arguments), stdin=given, stderr=subprocess.DEVNULL, text=True
            ) as process,
        ):
            if killed < kills:
                was_killed = kill_when(process, log, draw.randint(1, 80))
            else:
                was_killed = process.wait(300) < 0
        inferred = read_log(log)
        again = sum(tokens for tokens, text in inferred if text in before)
        assert again <= BATCH_TOKENS
        before.update(text for _, text in inferred)
        if not was_killed:
            break
        killed += 1

    assert killed >= min(kills, 8)
    assert not list(folder.glob("*.journal")) + list(folder.glob(".*.part"))
    return len(before)


def test_kill_9_at_ten_moments_gives_the_same_bytes_and_costs_a_batch_each(
    options, model_home, uninterrupted, tmp_path
):
    output = tmp_path / "v.parquet"

    texts = run_with_kills(tmp_path, model_home, KILLS, *options, "--output", output)

    assert texts == ROWS - 5
    assert output.read_bytes() == (uninterrupted / "v.parquet").read_bytes()
    refused = f"{output.name}.refused.jsonl"
    assert (tmp_path / refused).read_bytes() == (uninterrupted / refused).read_bytes()


@pytest.mark.parametrize("form", ["csv", "parquet", "standard input"])
def test_other_forms_of_input_survive_kill_9_as_well(
    corpus, model_home, uninterrupted, tmp_path, form
):
    rows = [row for row in map(json.loads, corpus.open()) if row["body"] is not None]
    output, texts = tmp_path / "v.npy", [row["body"] for row in rows]
    flags = "--batch-tokens", BATCH_TOKENS, "--output", output
    given, stdin = tmp_path / f"corpus.{form}", None
    if form == "csv":
        with given.open("w", newline="") as file:
            csv.writer(file).writerows([["key", "body"], *(row.values() for row in rows)])
        flags = given, "--field", "body", "--id", "key", *flags
    elif form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"key": [row["key"] for row in rows], "body": texts})
        pytest.importorskip("pyarrow.parquet").write_table(table, given, row_group_size=100)
        flags = given, "--field", "body", "--id", "key", *flags
    else:
        given.write_text("\n".join(texts))
        stdin = given

    inferred = run_with_kills(tmp_path, model_home, FEW_KILLS, *flags, stdin=stdin)

    assert inferred == len(texts)
    whole = np.load(uninterrupted / "v.npy")
    assert np.load(output).tobytes() == whole[~np.isnan(whole[:, 0])].tobytes()


def test_the_three_forms_hold_the_vectors_of_the_model_bit_by_bit(corpus, uninterrupted, installed):
    rows = [json.loads(line) for line in corpus.open()]
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    encoder = OnnxEncoder(installed.graph)
    matrix = np.load(uninterrupted / "v.npy")
    lines = {
        row["id"]: row["embedding"] for row in map(json.loads, (uninterrupted / "v.jsonl").open())
    }
    parquet = pytest.importorskip("pyarrow.parquet").read_table(uninterrupted / "v.parquet")
    columns = dict(zip(parquet["id"].to_pylist(), parquet["embedding"].to_pylist(), strict=True))

    assert matrix.shape == (ROWS, 384)
    assert matrix.dtype == np.float32
    assert len(lines) == len(columns) == ROWS - 5
    for i in range(0, ROWS, 40):
        (ids,) = tokenizer.encode([rows[i]["body"]])
        (vector,) = encoder.encode(np.array([ids]))
        for found in (matrix[i], lines[f"k{i}"], columns[f"k{i}"]):
            assert np.asarray(found, np.float32).tobytes() == vector.tobytes()


def test_rows_without_a_text_go_to_the_side_file_and_are_nan_in_numpy(uninterrupted, corpus):
    refused = [json.loads(line) for line in (uninterrupted / "v.npy.refused.jsonl").open()]

    numbers = [5, 204, 403, 602, 801]
    assert [(row["row"], row["id"]) for row in refused] == [(i, f"k{i}") for i in numbers]
    assert {row["file"] for row in refused} == {str(corpus)}
    assert {row["reason"] for row in refused} == {"no field body"}
    matrix = np.load(uninterrupted / "v.npy")
    assert np.flatnonzero(np.isnan(matrix).any(axis=1)).tolist() == numbers


def test_an_input_that_has_changed_is_not_continued(model_home, options, corpus, tmp_path):
    changed = tmp_path / "corpus.jsonl"
    changed.write_bytes(corpus.read_bytes())
    arguments = [changed, *options[1:], "--output", tmp_path / "v.npy"]
    log = tmp_path / "log"
    with subprocess.Popen(
        command(log, model_home, *arguments), stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert kill_when(process, log, 400)
    changed.write_bytes(corpus.read_bytes().replace(b'k1"', b'kx"', 1))

    done = run(log, model_home, *arguments)

    assert done.returncode == 2
    assert "the input has changed" in done.stderr


def test_an_output_that_exists_is_replaced_only_on_request(model_home, tmp_path):
    text, output = tmp_path / "a.txt", tmp_path / "v.npy"
    text.write_text("one\ntwo\n")
    output.write_bytes(b"mine")

    refused = run(tmp_path / "log", model_home, text, "--output", output)

    assert refused.returncode == 2
    assert output.read_bytes() == b"mine"
    assert (
        run(tmp_path / "log", model_home, text, "--output", output, "--overwrite").returncode == 0
    )
    assert np.load(output).shape == (2, 384)


def test_without_an_output_lines_of_json_go_to_standard_output(model_home, tmp_path):
    done = subprocess.run(
        command(tmp_path / "log", model_home),
        input="How do I reset my password?\n\nHello\n",
        capture_output=True,
        text=True,
        timeout=120,
    )

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [(row["id"], len(row["embedding"])) for row in rows] == [(0, 384), (1, 384)]


def test_a_model_that_does_not_exist_is_told_with_78(model_home, tmp_path):
    done = run(tmp_path / "log", model_home, "--model", "no-such-model")

    assert done.returncode == 78
