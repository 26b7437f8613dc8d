"""A warm store is moved by the commands, under running servers: every request is a hit there."""

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys

import pytest
from asking import MODEL, wait_until
from chatting import ask, text_of
from redis.client import Redis
from reranking import NAME as RERANKER
from reranking import home_with_reranker
from server_process import Server

TEXTS = [
    f"Question {i}: how do I reset the password of account {i * 7919 % 1000}?" for i in range(400)
]
IN_DOCS = {"X-Cacheproxy-Namespace": "docs", "X-Cacheproxy-Tags": "v1"}
QUERY, DOCUMENTS = "What is a cache?", ["A cache keeps answers.", "Bread is baked.", "An index."]


EVERYTHING = len(TEXTS) + len(DOCUMENTS) + 1


def count(path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608


def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cacheproxy", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **env}
    )


class Moving:
    """A home with two models, and the commands about its stores."""

    def __init__(self, home, upstream):
        self.home = home
        self.config = home / "cacheproxy.toml"
        self.config.write_text(
            f'model = ["{MODEL}", "{RERANKER}"]\n[upstreams.main]\nbase_url = "{upstream.url}"\n'
            'api_key = "sk-ours"\nmodels = ["gpt-test"]\n'
        )

    def serve(self, store: str) -> Server:
        return Server(self.home, store, "--drain-s", "0", "--config", str(self.config))

    def move(self, command: str, file, store: str, *flags: str, code: int = 0, **env: str) -> str:
        given = command, file, "--home", self.home, "--config", self.config, "--store", store
        done = run(*given, *flags, **env)
        assert done.returncode == code, done.stderr
        return done.stdout if code in (0, 65) else done.stderr


@pytest.fixture(scope="module")
def moving(model_home, upstream, tmp_path_factory):
    return Moving(home_with_reranker(tmp_path_factory.mktemp("moving"), model_home), upstream)


def answers_of(server: Server) -> list:
    """Return all answers: vectors as bytes, scores, and a completion; and how they came about."""
    client = server.client(default_headers=IN_DOCS)
    answers, statuses = [], []
    for start in range(0, len(TEXTS), 100):
        raw = client.embeddings.with_raw_response.create(
            model=MODEL, input=TEXTS[start : start + 100], encoding_format="base64"
        )
        answers += [base64.b64decode(one["embedding"]) for one in json.loads(raw.content)["data"]]
        statuses.append(raw.headers["cache-status"])
    body = {"model": RERANKER, "query": QUERY, "documents": DOCUMENTS}
    ranked = server.http.post("/v1/rerank", json=body)
    said = ask(server, "What is moved?")
    answers += [ranked.json()["results"], text_of(said)]
    return [answers, [*statuses, ranked.headers["cache-status"], said.headers["cache-status"]]]


@pytest.fixture(scope="module")
def warm(moving, tmp_path_factory):
    """A file that was exported from a running server's SQLite store, and what it answers."""
    folder = tmp_path_factory.mktemp("warm")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    path = folder / "cache.sqlite"
    server = moving.serve(f"sqlite:///{path}")
    try:
        flags = "--url", server.url, "--model", MODEL, "--namespace", "docs", "--tag", "v1"
        warmed = run("warm", corpus, *flags)
        assert warmed.returncode == 0, warmed.stderr
        answers, statuses = answers_of(server)
        assert not [status for status in statuses[:-2] if "fwd=" in status]

        wait_until(lambda: count(path, "entries") == EVERYTHING and count(path, "states"))
        states = count(path, "states")
        said = moving.move("export", folder / "moved", f"sqlite:///{path}")
    finally:
        server.stop()
    assert said.startswith(f"exported: {EVERYTHING} entries of 2 namespaces")
    assert int(re.search(r"evidence of (\d+)", said).group(1)) >= states > 0
    return folder / "moved", answers


def test_every_request_is_a_hit_in_the_redis_that_a_file_was_imported_into(
    moving, warm, redis_url, upstream, tmp_path
):
    file, answers = warm
    with Redis.from_url(redis_url) as client:
        client.flushall()
    server = moving.serve(redis_url)
    try:
        said = moving.move("import", file, redis_url)
        assert f"imported: {EVERYTHING} entries" in said
        asked = len(upstream)

        found, statuses = answers_of(server)

        assert found == answers
        assert not [status for status in statuses if "fwd=" in status]
        assert server.inferred() == 0
        assert len(upstream) == asked

        back = tmp_path / "back"
        moving.move("export", back, redis_url, "--namespace", "docs")
        again = f"sqlite:///{tmp_path / 'again.sqlite'}"
        assert f"imported: {len(TEXTS)} entries" in moving.move("import", back, again)
        purge = ("purge", "--namespace", "docs", "--tag", "v1")
        removed = run(*purge, "--home", moving.home, "--store", again, "--admin-port", "0")
        assert removed.stdout == f"entries removed: {len(TEXTS)}\n", removed.stderr
        assert f"already there: {len(TEXTS)} entries" in moving.move("import", back, redis_url)
    finally:
        server.stop()


def test_a_cut_and_an_altered_file_are_refused_with_the_record(moving, warm, tmp_path):
    data = warm[0].read_bytes()
    target = tmp_path / "new.sqlite"
    for damaged in (data[: len(data) // 2], data[:5_000] + b"!" + data[5_001:]):
        file = tmp_path / "damaged"
        file.write_bytes(damaged)
        said = moving.move("import", file, f"sqlite:///{target}", code=2)
        assert re.fullmatch(r"cacheproxy: \S+: record \d+ is damaged.*\(byte [\d,]+\)\n", said)
    assert count(target, "entries") == 0


def test_entries_of_a_model_that_is_not_served_are_refused_and_counted(moving, warm, tmp_path):
    store = f"sqlite:///{tmp_path / 'new.sqlite'}"
    given = "import", warm[0], "--home", moving.home, "--store", store

    done = run(*given, "--model", MODEL)

    assert done.returncode == 65, done.stderr
    assert f"imported: {len(TEXTS)} entries" in done.stdout
    assert f"refused: {len(DOCUMENTS) + 1} entries of models that are not served" in done.stdout


def test_an_encrypted_store_gives_an_encrypted_file(moving, warm, tmp_path):
    key = base64.b64encode(b"k" * 32).decode()
    store, file = f"sqlite:///{tmp_path / 'new.sqlite'}", tmp_path / "moved"
    moving.move("import", warm[0], store, CACHEPROXY_ENCRYPTION_KEYS=key)
    moving.move("export", file, store, CACHEPROXY_ENCRYPTION_KEYS=key)

    assert b"What is moved?" in warm[0].read_bytes()
    assert b"What is moved?" not in file.read_bytes()
    said = moving.move("import", file, f"sqlite:///{tmp_path / 'other.sqlite'}", code=2)
    assert "the file is encrypted" in said


@pytest.mark.parametrize(
    ("command", "store", "said"),
    [
        ("export", "memory://", "a store in memory cannot be exported"),
        ("import", "memory://", "nothing can be imported into a store in memory"),
        ("export", "sqlite:///nowhere/cache.sqlite", "there is no file"),
    ],
)
def test_stores_that_cannot_be_moved_are_told_of(moving, warm, tmp_path, command, store, said):
    file = tmp_path / "moved" if command == "export" else warm[0]
    assert said in moving.move(command, file, store, code=2)
    assert not (tmp_path / "moved").exists()
