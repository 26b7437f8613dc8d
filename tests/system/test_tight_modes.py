"""What the server leaves on a machine is its user's alone: files, memory, command lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from asking import MODEL
from server_process import Server


@pytest.fixture(scope="module")
def loose(model_home, tmp_path_factory):
    """A server that was started where everybody may read what a process writes."""
    folder = tmp_path_factory.mktemp("loose")
    before = os.umask(0)
    try:
        server = Server(
            model_home,
            f"sqlite:///{folder / 'kept' / 'cache.sqlite'}",
            *("--record-path", str(folder / "recorded" / "requests.jsonl"), "--record-texts"),
            *("--drain-s", "0", "--workers", "2"),
        )
    finally:
        os.umask(before)
    server.folder = folder
    yield server
    assert server.stop() == 0, server.log


def test_files_are_readable_by_their_user_only(loose):
    client = loose.client()
    for number in range(5):
        client.embeddings.create(input=f"a text to keep, {number}", model=MODEL)
    paths = [path for name in ("kept", "recorded") for path in (loose.folder / name).rglob("*")]

    assert {path.name for path in paths} >= {"cache.sqlite", "cache.sqlite-wal"}
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in paths} == {
        path.name: "0o0" for path in paths
    }
    for name in ("kept", "recorded"):
        assert (loose.folder / name).stat().st_mode & 0o077 == 0


def test_no_process_leaves_a_core_dump(loose):
    for pid in (loose.process.pid, *loose.worker_pids()):
        limits = Path(f"/proc/{pid}/limits").read_text()
        (line,) = (one for one in limits.splitlines() if one.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]
    is_dumpable = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    forbid = "from cacheproxy.server.secrecy.core_dumps import forbid_core_dumps as f; f()"
    for code, says in ((is_dumpable, "1"), (f"{forbid}; {is_dumpable}", "0")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == says


@pytest.mark.parametrize(
    "flag",
    [
        ("--store", "redis://user:secret@127.0.0.1:1"),
        ("--store", "redis://127.0.0.1:1?password=secret"),
        ("--admin-token", "secret"),
        ("--encryption-keys", "secret"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(flag):
    command = [sys.executable, "-m", "cacheproxy", "serve", *flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "secret" not in done.stdout + done.stderr
