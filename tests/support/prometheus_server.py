"""A real Prometheus for tests, and what its queries ask for."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
from debian_programs import Program, need_program
from redis_server import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"


def program(name: str) -> Program:
    """Return `prometheus` or `promtool`."""
    return need_program(name, "prometheus", f"usr/bin/{name}", with_depends=False)


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the series' names in a query, each with the labels by which it is selected."""
    query = query.replace("$__rate_interval", "5m").replace("$job", "cacheproxy")
    found: list[Any] = []

    def note(expression: Any) -> bool:
        if isinstance(expression, promql_parser.MatrixSelector):
            found.append(expression.vector_selector)
        elif isinstance(expression, promql_parser.VectorSelector):
            found.append(expression)
        return True

    promql_parser.walk(promql_parser.parse(query), note)
    for selector in found:
        yield selector.name, {matcher.name for matcher in selector.matchers.matchers}


class Prometheus:
    """One Prometheus process, which by default scrapes and evaluates four times a second."""

    def __init__(self, target: str, rules: str, *, every_ms: int = 250) -> None:
        """Start; `target` is HOST:PORT of a server, `rules` the text of a rule file."""
        times = ("scrape_interval", "scrape_timeout", "evaluation_interval")
        every = ", ".join(f"{name}: {every_ms}ms" for name in times)
        self._folder = tempfile.TemporaryDirectory(prefix="cacheproxy-prometheus-")
        folder = Path(self._folder.name)
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(
            f"global: {{{every}}}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs:\n"
            "- job_name: cacheproxy\n"
            f"  static_configs: [{{targets: ['{target}']}}]\n"
        )
        found, port = program("prometheus"), free_port()
        command = [str(found.path), f"--config.file={folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--query.lookback-delta=2s"]
        self._log = (folder / "log").open("w+b")
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env={**os.environ, "GOMAXPROCS": "1"}
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        deadline = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return what an instant query gives."""
        answer = self.http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self.ask('ALERTS{alertstate="firing"}')
        return {sample["metric"]["alertname"] for sample in found}

    def remove(self) -> None:
        """End it for good."""
        self._process.terminate()
        self._process.wait(30)
        self.http.close()
        self._log.close()
        self._folder.cleanup()
