"""Settings that change while the real server answers: in all of its workers, or in none.

With CACHEPROXY_TEST_RELOADS=50 there are as many reloads under load as the docs tell of.
"""

import os
import signal
import threading
import time
from itertools import count

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from server_process import Server
from upstream import Upstream

from cacheproxy.api.access.key_ring import hash_key

RELOADS = int(os.environ.get("CACHEPROXY_TEST_RELOADS", "10"))
MODEL = "all-MiniLM-L6-v2"
TOKEN = {"authorization": "Bearer geheim"}

INVALID = [
    ("[cache]\nttl_s = -1\n", "line 7 of "),
    ("[cache]\nttl_s = 1 hour\n", "line"),
    ("[cache]\nttl = 1\n", "cache.ttl"),
    ("[tenants.nobody]\nin_flight = 1\n", "tenants.nobody"),
    ('[chat]\njudge = "nobody"\n', "chat.judge"),
    ('[upstreams.third]\nbase_url = "http://127.0.0.1:9/v1"\ntls.ca = "/no/file"\n', "third.tls"),
]
"""What no server takes, and what is told of it; the last two only a worker finds out."""


class Reloaded:
    """A server with two workers and a settings file."""

    def __init__(self, server: Server, file, upstreams: list[Upstream]):
        self.server, self.file, self.upstreams = server, file, upstreams

    def settings(self, *, upstream: int = 0, key: str = "first", more: str = "") -> str:
        url = self.upstreams[upstream].url
        return (
            f'[upstreams.main]\nbase_url = "{url}"\nmodels = ["m"]\n'
            f'[api_keys]\nacme = ["{hash_key("always")}", "{hash_key(key)}"]\n{more}'
        )

    def reload(self, text: str) -> httpx.Response:
        self.file.write_text(text)
        return self.server.admin.post("/admin/reload", headers=TOKEN)

    def taken(self, **given) -> dict:
        answer = self.reload(self.settings(**given))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self, path: str, body: dict, key: str = "always", **headers) -> httpx.Response:
        """Ask on a connection of its own: either worker may answer."""
        given = {"authorization": f"Bearer {key}", **headers}
        with httpx.Client(base_url=self.server.url, timeout=60, verify=False) as client:  # noqa: S501
            return client.post(path, json={"model": MODEL, **body}, headers=given)

    def chat(self, question: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        return self.ask("/v1/chat/completions", body)

    def embed(self, text: str, key: str = "always", **headers) -> httpx.Response:
        return self.ask("/v1/embeddings", {"input": text}, key, **headers)

    def from_each(self, ask) -> set:
        """Return what comes of asking so often that each worker is all but sure to be asked."""
        return {ask() for _ in range(30)}


@pytest.fixture(scope="module")
def reloaded(model_home, tmp_path_factory):
    upstreams = [Upstream(), Upstream()]
    folder = tmp_path_factory.mktemp("reload")
    reloaded = Reloaded(None, folder / "cacheproxy.toml", upstreams)
    reloaded.file.write_text(reloaded.settings())
    reloaded.server = Server(
        *(model_home, f"sqlite:///{folder / 'cache.sqlite'}", "--drain-s", "0", "--workers", "2"),
        *("--admin-port", "0", "--config", str(reloaded.file)),
        env={"CACHEPROXY_ADMIN_TOKEN": "geheim"},
    )
    yield reloaded
    assert reloaded.server.stop() == 0, reloaded.server.log
    for upstream in upstreams:
        upstream.stop()


def test_no_request_fails_under_reloads_of_which_half_are_refused(reloaded):
    numbers, statuses, is_over = count(), [], threading.Event()

    def load() -> None:
        while not is_over.is_set():
            number = next(numbers)
            statuses.append(reloaded.embed(f"text {number % 7}").status_code)
            statuses.append(reloaded.chat(f"question {number}").status_code)

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    before = reloaded.server.metric("reloads_total", result="refused")
    try:
        for turn in range(RELOADS):
            if turn % 2:
                text, told = INVALID[turn // 2 % len(INVALID)]
                refused = reloaded.reload(reloaded.settings(upstream=1, key="never", more=text))
                assert refused.status_code == 422, refused.text
                assert told in refused.json()["error"]["message"]
            else:
                more = f"[cache]\nttl_s = {1000 + turn}\n"
                done = reloaded.taken(upstream=turn // 2 % 2, key=f"key-{turn}", more=more)
                assert {"cache.ttl_s", "api_keys.acme"} <= set(done["changed"])
    finally:
        is_over.set()
        for client in clients:
            client.join()

    assert set(statuses) == {200}
    assert len(statuses) > 2 * RELOADS
    assert reloaded.server.metric("reloads_total", result="refused") - before == RELOADS // 2
    assert reloaded.server.metric("reload_successful") == RELOADS % 2
    # What was refused has left no trace: the keys are those of the last reload that was done.
    last = RELOADS - 2 + RELOADS % 2
    assert reloaded.from_each(lambda: reloaded.embed("x", "never").status_code) == {401}
    assert reloaded.from_each(lambda: reloaded.embed("x", f"key-{last}").status_code) == {200}


def test_every_worker_asks_the_new_upstream_with_the_new_key(reloaded):
    for number in (0, 1):
        reloaded.taken(upstream=number)
        numbers = count()
        reloaded.from_each(lambda: reloaded.chat(f"of {number}: {next(numbers)}").status_code)  # noqa: B023

        asked = [
            len([one for one in upstream.asked if one.question.startswith(f"of {number}: ")])
            for upstream in reloaded.upstreams
        ]
        assert asked[number] == 30
        assert asked[1 - number] == 0


def test_a_threshold_set_by_hand_serves_at_once_and_off_serves_nothing(reloaded):
    def near(text: str) -> set[bool]:
        numbers = count()
        return reloaded.from_each(
            lambda: "semantic" in reloaded.embed(f"{text} {next(numbers)}").headers["cache-status"]
        )

    reloaded.embed("how do I reset the password of my account please number")
    assert near("how do I reset the password of my account please") == {False}
    done = reloaded.taken(more="[semantic]\nthreshold = 0.1\n")
    assert "semantic.threshold" in done["changed"]
    assert True in near("how would I reset the password of my account")
    reloaded.taken(more='[semantic]\nmode = "off"\n')
    assert near("how could I reset the password of my account") == {False}


def test_limits_of_a_tenant_hold_from_the_reload_on_and_go_with_another(reloaded):
    def ask() -> int:
        return reloaded.embed("limited").status_code

    reloaded.taken(more="[tenants.acme]\nrequests_per_minute = 10\n")
    assert 429 in reloaded.from_each(ask)
    reloaded.taken()
    assert reloaded.from_each(ask) == {200}


def test_what_needs_a_restart_is_named_and_a_signal_reloads_too(reloaded):
    done = reloaded.taken(more='[batch]\nwindow_ms = 3\n[log]\nlevel = "warning"\n')
    assert done["needs_restart"] == ["batch.window_ms"]
    assert done["changed"] == ["log.level"]

    server = reloaded.server
    counted = server.metric("reloads_total", result="done")
    reloaded.file.write_text(reloaded.settings())
    server.process.send_signal(signal.SIGHUP)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGHUP)  # as a careless `pkill` does; it must not end a worker
    deadline = time.monotonic() + 20
    while server.metric("reloads_total", result="done") == counted:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert server.metric("reloads_total", result="done") == counted + 1
    assert server.metric("workers") == 2
    assert server.metric("worker_restarts_total") == 0
    assert server.metric("reload_success_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    text = server.http.get("/metrics").text
    assert text.count("cacheproxy_settings_info{") == 1  # all workers run the same
    assert "by=signal result=done" in server.log
    assert "by=token result=refused" in server.log
    assert "geheim" not in server.log


def test_only_operators_may_reload(reloaded):
    for headers in ({}, {"authorization": "Bearer always"}):
        refused = reloaded.server.admin.post("/admin/reload", headers=headers)
        assert refused.status_code in {401, 403}


def test_a_scrape_in_openmetrics_has_the_trace_of_an_example(reloaded):
    trace = "0af7651916cd43dd8448eb211c80319c"
    for flags in ("00", "01"):  # the first one is not recorded anywhere
        parent = f"{trace if flags == '01' else trace[::-1]}-b7ad6b7169203331-{flags}"
        assert reloaded.embed("traced", traceparent=f"00-{parent}").status_code == 200

    accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    scrape = reloaded.server.http.get("/metrics", headers=accept)

    assert scrape.headers["content-type"].startswith("application/openmetrics-text")
    families = list(text_string_to_metric_families(scrape.text))
    exemplars = [
        sample.exemplar.labels["trace_id"]
        for family in families
        if family.name == "cacheproxy_request_duration_seconds"
        for sample in family.samples
        if sample.exemplar
    ]
    assert set(exemplars) == {trace}
    plain = reloaded.server.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert trace not in plain.text


def test_the_busiest_namespaces_have_series_as_many_as_are_asked_for(reloaded):
    reloaded.taken(more="[metrics]\nnamespaces = 2\n")
    for number, times in ((1, 20), (2, 1)):
        for _ in range(times):
            reloaded.embed("counted", **{"x-cacheproxy-namespace": f"n{number}"})

    text = reloaded.server.http.get("/metrics").text
    shown = {
        line.split(",outcome")[0]
        for line in text.splitlines()
        if line.startswith("cacheproxy_namespace_answers_total{")
    }
    assert len([labels for labels in shown if 'namespace="other"' not in labels]) == 2

    reloaded.taken(more="[metrics]\nnamespaces = 0\n")
    text = reloaded.server.http.get("/metrics").text
    assert "cacheproxy_namespace_answers_total{" not in text
