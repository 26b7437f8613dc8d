"""The real server process, as a user starts it, and what it says of itself."""

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

T = TypeVar("T")

READY = re.compile(r"ready: (https?://\S+)/v1")
ADMIN = re.compile(r"for operators: (https?://\S+)/admin")

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of servers without TLS: httpx would read all certificates for each, 25 ms of CPU."""


def sum_of(exposition: str, name: str, **labels: str) -> float:
    """Return the sum of a series' samples that carry these labels.

    Only that series' lines are parsed: all of them take 20 ms, and tests that wait ask often.
    """
    series = tuple(f"cacheproxy_{name}{end}" for end in "{ ")
    lines = "".join(line for line in exposition.splitlines(True) if line.startswith(series))
    return sum(
        sample.value
        for family in text_string_to_metric_families(lines)
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    )


def settled(read: Callable[[], T]) -> T:
    """Return what is read once it stays for 50 ms: some things are counted behind an answer."""
    now = read()
    while True:
        time.sleep(0.05)
        before, now = now, read()
        if now == before:
            return now


class Server:
    """One `cacheproxy serve` process and its log."""

    def __init__(
        self,
        home: Path,
        store: str,
        *flags: str,
        env: dict[str, str] | None = None,
        checkout: str | None = None,
    ):
        """Start it and wait until it listens; `checkout` has another version's sources."""
        command = [sys.executable, "-m", "cacheproxy", "serve", "--port", "0"]
        command += ["--home", str(home), *flags]
        if "@" in store:  # a password, which a command line must not have
            env = {"CACHEPROXY_STORE": store, **(env or {})}
        else:
            command += ["--store", store]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **({"PYTHONPATH": checkout} if checkout else {}), **(env or {})},
            cwd=checkout,
        )
        self.lines: list[str] = []
        self.url = ""
        self.admin_url = ""
        self._said_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._said_ready.wait(60) or not self.url:
            self.process.kill()
            raise AssertionError("the server did not become ready:\n" + self.log)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            if found := ADMIN.search(line):
                self.admin_url = found.group(1)
            if found := READY.search(line):
                self.url = found.group(1)
                self._said_ready.set()
        self._said_ready.set()

    @cached_property
    def http(self) -> httpx.Client:
        """A plain client of this server, kept: making one costs more than most requests."""
        return httpx.Client(base_url=self.url, timeout=60, verify=TRUSTS_NOBODY)

    @cached_property
    def admin(self) -> httpx.Client:
        """A client of the server's admin listener."""
        return httpx.Client(base_url=self.admin_url, timeout=60, verify=TRUSTS_NOBODY)

    def client(self, api_key: str = "unused", **more) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, **more)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a series' samples that carry these labels."""
        return sum_of(self.scrape(f"cacheproxy_{name}"), name, **labels)

    def scrape(self, *names: str) -> str:
        """Return the metrics of these names; one costs the server a thirtieth of all."""
        return self.http.get("/metrics", params={"name[]": names}).text

    def inferred(self) -> float:
        """Return how many texts the model has read."""
        return self.metric("batch_texts_sum")

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that run, where there are several."""
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
