"""The rules and the dashboard: they do what they say, and ask only for what there is."""

import itertools
import json
import re
import subprocess
import sys

import pytest
import yaml
from asking import MODEL, wait_until
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import DEPLOY, Prometheus, program, selectors
from server_process import Server

RULES = [DEPLOY / "prometheus" / name for name in ("recording.yml", "slo.yml", "alerts.yml")]
RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
DASHBOARD = DEPLOY / "grafana" / "cacheproxy.json"


def promtool(*arguments, given: str | None = None) -> None:
    found = program("promtool")
    done = subprocess.run(
        [found.path, *arguments],
        input=given,
        capture_output=True,
        text=True,
        # The collector of garbage, as often as by default, takes a third of the time.
        env={**found.environment, "GOGC": "800"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[str]:
    return [rule["alert"] for rule in rules() if "alert" in rule]


def panel_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_promtool_finds_no_fault():
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    promtool("check", "rules", *RULES)


def test_each_cause_fires_its_alerts_and_no_others():
    promtool("test", "rules", *RULE_TESTS)


def test_every_alert_has_a_cause_among_the_rules_tests():
    told = "".join(path.read_text() for path in RULE_TESTS)
    assert [name for name in alerts() if f'alertname="{name}"' not in told] == []


def test_every_alert_says_how_bad_it_is_and_where_to_read_on():
    for rule in rules():
        if name := rule.get("alert"):
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_the_dashboard_is_what_its_script_writes():
    script = DEPLOY / "grafana" / "dashboard.py"
    assert subprocess.check_output([sys.executable, script], text=True) == DASHBOARD.read_text()


_numbers = itertools.count()


def ask_a_little(server: Server) -> None:
    """Ask for a text that is new, so that the store is asked, and for it again."""
    body = {"input": f"is this question number {next(_numbers)} or the next?", "model": MODEL}
    for _ in range(2):
        assert server.http.post("/v1/embeddings", json=body).status_code == 200


@pytest.fixture(scope="module")
def redis(breakable_redis):
    return breakable_redis


@pytest.fixture(scope="module")
def server(model_home, redis):
    """A server with workers, on a Redis of its own: all series that there are."""
    server = Server(model_home, redis.url, "--drain-s", "0", "--workers", "2")
    ask_a_little(server)
    yield server
    assert server.stop() == 0, server.log


def test_every_series_that_a_rule_or_a_panel_names_exists_with_those_labels(server):
    known: dict[str, set[str]] = {"up": set()}
    exposition = server.http.get("/metrics").text
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", exposition, re.MULTILINE):
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        known |= {name + ending: set() for ending in endings}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            known[sample.name] |= set(sample.labels)
    known |= {rule["record"]: set() for rule in rules() if "record" in rule}

    asked = [*panel_queries(), *(rule["expr"] for rule in rules())]
    assert len(asked) > 60
    for query in asked:
        for name, labels in selectors(query):
            if name.startswith("DCGM_"):  # another exporter's
                continue
            assert name in known, query
            if known[name]:
                assert labels - {"job", "instance"} <= known[name], query


def test_promtool_finds_no_fault_with_the_metrics(server):
    promtool("check", "metrics", given=server.http.get("/metrics").text)


def test_series_of_all_workers_can_be_asked_for_by_name(server):
    names = ("cacheproxy_workers", "cacheproxy_lookups_total")
    whole = server.http.get("/metrics").text.splitlines()
    asked = [line for line in server.scrape(*names).splitlines() if not line.startswith("#")]
    assert "cacheproxy_workers 2.0" in asked
    assert asked == [line for line in whole if line.startswith(names)]


def shortened(text: str) -> str:
    """Return rules that wait two seconds where they would wait minutes, over as short ranges."""
    text = re.sub(r"for: \d+m", "for: 1s", text)
    return re.sub(r"\[\d+[mhd]\]", "[2s]", text)


@pytest.fixture
def prometheus(server):
    text = "".join(path.read_text().replace("groups:", "", 1) for path in RULES)
    prometheus = Prometheus(server.url.removeprefix("http://"), "groups:\n" + shortened(text))
    yield prometheus
    prometheus.remove()


def test_a_redis_that_stops_wakes_somebody_until_it_is_back(server, redis, prometheus):
    def settles_on(names: set[str]) -> bool:
        ask_a_little(server)
        return names == prometheus.firing() & {"CacheproxyBreakerOpen", "CacheproxyPurgesNotHeard"}

    def has_figures() -> bool:
        ask_a_little(server)
        return bool(prometheus.ask("cacheproxy:hit_ratio:rate5m"))

    wait_until(has_figures)
    wait_until(lambda: settles_on(set()))
    assert "CacheproxyDown" not in prometheus.firing()

    redis.stop()
    wait_until(lambda: settles_on({"CacheproxyBreakerOpen", "CacheproxyPurgesNotHeard"}))
    assert "CacheproxyErrors" not in prometheus.firing()

    redis.start()
    wait_until(lambda: settles_on(set()))
    for query in panel_queries():
        prometheus.ask(query.replace("$__rate_interval", "5s").replace("$job", "cacheproxy"))


RUNBOOK = (DEPLOY.parent / "docs" / "runbook.md").read_text()


def test_the_runbook_has_an_entry_for_each_alert_and_for_no_other():
    entries = re.findall(r"^## (Cacheproxy\w+)\n\n\*\*Means\*\*(.*?)(?=^## )", RUNBOOK, re.M | re.S)
    assert [name for name, _ in entries] == alerts()
    for _, text in entries:
        assert "**Look**" in text
        assert "**Do**" in text


def test_the_runbooks_table_names_each_alert_its_severity_and_its_tests():
    rows = re.findall(r"^\| \[\**(\w+)\**\]\(#(\w+)\) \| (\w+) \| (.+) \|$", RUNBOOK, re.MULTILINE)
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules() if "alert" in rule}
    assert [(name, severity) for name, _, severity, _ in rows] == list(severities.items())
    causes = {
        test["name"]: str(test)
        for path in RULE_TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
    }
    for name, anchor, _, told in rows:
        assert anchor == name.lower()
        for cause in told.split("; "):
            assert f'alertname="{name}"' in causes[cause]
