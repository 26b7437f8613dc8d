"""Two servers on one SQLite file, of which one is killed: nothing is lost or comes back."""

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import httpx
from asking import ask, is_cached, wait_until
from embedded_entries import set_aside

_TEXTS = 40
_ROUNDS = 3
FLAGS = ("--admin-port", "0", "--semantic-mode", "off")
PURGED = "purged"
TAGS = (PURGED, "left", "alone")


def purge(server) -> None:
    order = {"tenant": "default", "namespace": "default", "tag": PURGED}
    assert server.admin.post("/admin/purge", json=order).status_code == 200


def write(server, texts: dict[str, str]) -> None:
    """Ask all texts, with their tags; ends early if the server does."""
    with contextlib.suppress(httpx.TransportError):
        for text, tag in texts.items():
            ask(server, text, x_cacheproxy_tags=tag)


def new_texts(about: str) -> dict[str, str]:
    return {f"{about} number {n}": TAGS[n % len(TAGS)] for n in range(_TEXTS)}


def is_written(server) -> bool:
    return server.metric("writeback_queue_entries") == 0


def test_writes_and_purges_of_two_servers_survive_a_kill_9_of_one(start_server, tmp_path):
    one, other = (start_server(*FLAGS) for _ in range(2))
    kept: list[str] = []
    for number in range(_ROUNDS):
        ours, theirs = new_texts(f"ours {number}"), new_texts(f"theirs {number}")
        lost = new_texts(f"lost {number}")
        with ThreadPoolExecutor(4) as pool:
            writing = [pool.submit(write, one, ours), pool.submit(write, other, theirs)]
            purging = [pool.submit(purge, server) for server in (one, other, one)]
            for done in (*writing, *purging):
                done.result()
            wait_until(lambda server=other: is_written(server))

            # What is under way in the one that is killed may be lost, and nothing else.
            writing = [pool.submit(write, server, lost) for server in (other, other)]
            last_purge = pool.submit(purge, one)
            wait_until(lambda server=other: server.inferred() > _TEXTS + 5)
            other.kill()
            for done in (*writing, last_purge):
                done.result()
        wait_until(lambda: is_written(one))
        kept += [text for text, tag in (ours | theirs).items() if tag != PURGED]
        other = start_server(*FLAGS)
        purge(other)
        heard = other.metric("purge_generation")
        wait_until(lambda heard=heard: one.metric("purge_generation") == heard)

        purged = [text for text, tag in (ours | theirs | lost).items() if tag == PURGED]
        for server in (one, other):
            assert not [text for text in purged if is_cached(server, text)]
            assert not [text for text in kept if not is_cached(server, text)]

    for server in (one, other):
        assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.sqlite")) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert set_aside(tmp_path / "cache.sqlite") == []
