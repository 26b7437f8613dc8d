"""Runs a Dockerfile's steps one by one where there is no Docker: `python dockerfile_steps.py FILE`.

Every stage is an overlay over this machine's own root folder (Linux, as root), with this Python
under /usr/local, in place of the base image, so that what a step leaves behind, who owns it and
what the last stage lacks are real; what the base image itself has is not. Then the container's
command is run as its user, until the health check passes, one request is answered, and SIGTERM ends
it with code 0.

All is mounted in a mount namespace of its own, on memory, and is gone when that ends; nothing is
ever deleted by path.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_APART = "--apart"
_WORK = Path("/mnt")
"""Hidden, in our own mount namespace only, by a folder in memory."""


@dataclass
class Stage:
    """A stage's root folder, and what its steps have set."""

    root: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Yield each instruction and its arguments, in one line."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            yield name, " ".join(arguments.split())


class Steps:
    """Runs the steps of one Dockerfile; `context` is the folder that it may copy from."""

    def __init__(self, work: Path, context: Path) -> None:
        self._work, self._context = work, context
        self._base = work / "base"
        shutil.copytree(sys.base_prefix, self._base / "usr/local", symlinks=True)
        self._stages: dict[str, Stage] = {}
        self.stage = Stage(Path("/nonexistent"))

    def run(self, name: str, arguments: str) -> None:
        """Run a step."""
        match name:
            case "FROM":
                self._begin(arguments)
            case "WORKDIR":
                self.stage.workdir = arguments
                self._inside(["mkdir", "-p", arguments], "/")
            case "COPY":
                self._copy(shlex.split(arguments))
            case "RUN":
                self._inside(["/bin/sh", "-c", arguments], self.stage.workdir)
            case "ENV":
                for word in shlex.split(arguments):
                    key, _, value = word.partition("=")
                    self.stage.environment[key] = self._expand(value)
            case "USER":
                self.stage.user = arguments
            case "ENTRYPOINT" | "CMD":
                self.stage.command += json.loads(arguments)
            case "HEALTHCHECK":
                self.stage.health = json.loads(arguments.partition("CMD ")[2])
            case "ARG" | "EXPOSE" | "VOLUME":
                return
            case _:
                raise NotImplementedError(name)

    def _begin(self, arguments: str) -> None:
        name = arguments.split(" AS ")[1] if " AS " in arguments else "last"
        folders = [self._work / name / part for part in ("upper", "work", "root")]
        for folder in folders:
            folder.mkdir(parents=True)
        upper, work, root = folders
        options = f"lowerdir={self._base}:/,upperdir={upper},workdir={work}"
        _mount("-t", "overlay", "-o", options, "overlay", root)
        _mount("-t", "proc", "proc", root / "proc")
        _mount("-t", "tmpfs", "tmpfs", root / "dev")
        for device in ("null", "zero", "random", "urandom"):
            (root / "dev" / device).touch()
            _mount("--bind", f"/dev/{device}", root / "dev" / device)
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "LD_LIBRARY_PATH": "/usr/local/lib"}
        self.stage = self._stages[name] = Stage(root, environment=environment)

    def _copy(self, words: list[str]) -> None:
        flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        origin = self._stages[flags["from"]].root if "from" in flags else self._context
        at = self.stage.root / str(Path(self.stage.workdir) / target).lstrip("/")
        for source in sources:
            path = origin / source.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, at, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(path, at)
        if "chown" in flags:
            inside = str(Path(self.stage.workdir) / target)
            self._inside(["chown", "-R", flags["chown"], inside], "/")

    def _expand(self, value: str) -> str:
        return re.sub(r"\$(\w+)", lambda found: self.stage.environment[found[1]], value)

    def _inside(self, command: list[str], workdir: str) -> None:
        subprocess.run(self.inside(command, workdir), check=True, env=self.stage.environment)

    def inside(self, command: list[str], workdir: str) -> list[str]:
        """Return the command that runs a command in the stage, as its user."""
        move = 'cd "$0" && exec "$@"'
        user = f"--userspec={self.stage.user}"
        return ["chroot", user, str(self.stage.root), "/bin/sh", "-c", move, workdir, *command]


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main() -> None:
    """Run all steps, then the container."""
    if sys.argv[1] != _APART:
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        script = [sys.executable, __file__, _APART, sys.argv[1]]
        sys.exit(subprocess.run([*apart, *script]).returncode)
    dockerfile = Path(sys.argv[2]).resolve()
    _mount("-t", "tmpfs", "tmpfs", _WORK)
    steps = Steps(_WORK, dockerfile.parents[1])
    for name, arguments in instructions(dockerfile):
        print(f"== {name} {arguments[:100]}", flush=True)
        steps.run(name, arguments)
    _serve(steps)


def _serve(steps: Steps) -> None:
    stage = steps.stage
    environment = {**stage.environment, "CACHEPROXY_ALLOW_ANONYMOUS": "true"}
    server = subprocess.Popen(steps.inside(stage.command, stage.workdir), env=environment)
    check = steps.inside(stage.health, stage.workdir)
    deadline = time.monotonic() + 60
    while subprocess.run(check, env=environment, capture_output=True).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("the server did not become healthy")
        time.sleep(0.2)
    body = {"model": "all-MiniLM-L6-v2", "input": "from a container"}
    request = urllib.request.Request(
        "http://127.0.0.1:8080/v1/embeddings",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    print("== answered:", urllib.request.urlopen(request).read(100), flush=True)
    server.send_signal(signal.SIGTERM)
    print("== exit code", code := server.wait(60), flush=True)
    sys.exit(code) if code else None


if __name__ == "__main__":
    main()
