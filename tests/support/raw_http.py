"""HTTP/1.1 by hand: bytes that no client library would send, and the answers cut apart."""

import socket
import time
from pathlib import Path
from typing import NamedTuple

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Answer(NamedTuple):
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection to a server's URL."""

    def __init__(self, url: str, timeout_s: float = 30) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.rest = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes, pause_s: float = 0.0) -> "Connection":
        """Send the parts; a server that has closed the connection is told by its answer."""
        try:
            for part in parts:
                self.socket.sendall(part)
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def read(self) -> Answer | None:
        """Return the next answer, or None if the server has closed the connection."""
        while b"\r\n\r\n" not in self.rest:
            if not self._receive():
                assert not self.rest, self.rest
                return None
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(headers.get("content-length", 0))
        while len(self.rest) < size:
            assert self._receive(), "the answer broke off"
        body, self.rest = self.rest[:size], self.rest[size:]
        return Answer(int(first.split()[1]), headers, body)

    def read_all(self) -> list[Answer]:
        """Return the answers until the server closes the connection."""
        answers = []
        while (answer := self.read()) is not None:
            answers.append(answer)
        return answers

    def _receive(self) -> bool:
        try:
            got = self.socket.recv(65_536)
        except ConnectionResetError:
            got = b""
        self.rest += got
        return bool(got)


def resident_mb(pid: int) -> float:
    """Return a process's resident memory, MB."""
    (line,) = (
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1_024
