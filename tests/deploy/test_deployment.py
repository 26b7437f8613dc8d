"""What ships under deploy/: valid for the tools that it is for, and naming only what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import compose_spec
import dockerfile_steps
import kubernetes_validate
import promql_parser
import pytest
import yaml
from debian_programs import need_program
from dockerfile_steps import instructions
from prometheus_server import DEPLOY

from cacheproxy.settings.settings import Settings
from cacheproxy.settings.sources import unknown_variables
from cacheproxy.telemetry.metrics import Metrics

ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes"
MEASURED_BYTES = 220_000_000
"""A server's memory without its hot tiers, as docs/deployment.md tells it."""

UNIT = DEPLOY / "systemd" / "cacheproxy.service"


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def manifests() -> dict[str, dict]:
    names = read(KUBERNETES / "kustomization.yaml")["resources"]
    return {(found := read(KUBERNETES / name))["kind"]: found for name in names}


def test_hadolint_finds_no_fault_with_the_dockerfile():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_copies_existing_files_and_does_not_run_as_root():
    steps = list(instructions(DOCKERFILE))
    copied = [words for name, words in steps if name == "COPY" and "--from" not in words]
    for words in copied:
        *sources, _ = words.split()
        assert [source for source in sources if not (ROOT / source).exists()] == []
        ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
        assert [source for source in sources if f"!{source}" not in ignored] == []
    (user,) = [words for name, words in steps if name == "USER"]
    assert not user.startswith(("root", "0"))
    last = steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    assert "pip install" not in str(last)


@pytest.mark.skipif(
    not os.environ.get("CACHEPROXY_TEST_DOCKERFILE"),
    reason="takes minutes, and root: CACHEPROXY_TEST_DOCKERFILE=1",
)
def test_the_dockerfiles_steps_give_a_container_that_serves():
    command = [sys.executable, dockerfile_steps.__file__, str(DOCKERFILE)]
    subprocess.run(command, check=True, timeout=1_200)


def variables_named() -> set[str]:
    """Return the variables of ours that the files under deploy/ set."""
    text = DOCKERFILE.read_text() + COMPOSE.read_text() + UNIT.read_text()
    text += (KUBERNETES / "deployment.yaml").read_text()
    return set(re.findall(r"\b(CACHEPROXY_[A-Z_]+)\b(?=[=:]|$)", text, re.MULTILINE))


def test_every_variable_that_is_set_is_a_setting():
    assert len(variables_named()) > 8
    assert unknown_variables(variables_named()) == []


def test_compose_reads_the_file_and_finds_all_that_it_mounts():
    compose_spec.PyCompose.from_yaml(COMPOSE.read_text()).to_spec()
    services = read(COMPOSE)["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    for mount in mounts:
        source = mount.split(":")[0]
        assert source in read(COMPOSE)["volumes"] or (DEPLOY / source).is_dir(), mount
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_and_grafana_find_each_other_and_the_server():
    services = read(COMPOSE)["services"]
    (scrape,) = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    host, port = scrape["static_configs"][0]["targets"][0].split(":")
    assert host in services
    assert ("EXPOSE", port) in list(instructions(DOCKERFILE))
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = read(provisioning / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read(provisioning / "dashboards" / "cacheproxy.yml")["providers"]
    assert f"./grafana:{provider['options']['path']}:ro" in services["grafana"]["volumes"]


@pytest.mark.parametrize("kind", manifests())
def test_kubernetes_would_take_the_manifests(kind):
    kubernetes_validate.validate(manifests()[kind], "1.31", strict=True)


def test_the_manifests_mean_the_same_pods_ports_and_paths():
    found = manifests()
    deployment = found["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        read(KUBERNETES / "podmonitor.yaml")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    paths = {
        container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "readiness", "liveness")
    }
    assert paths == {"/readyz", "/healthz"}
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "cacheproxy"


def test_a_pod_is_confined_and_takes_what_was_measured():
    spec = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"/var/lib/cacheproxy", "/tmp"}  # noqa: S108
    settings = Settings()
    hot = settings.cache.hot_bytes + settings.chat.hot_bytes
    memory = {kind: mebibytes(given["memory"]) for kind, given in container["resources"].items()}
    assert memory["requests"] * 2**20 > MEASURED_BYTES + hot
    bodies = settings.limits.all_bodies_bytes
    assert memory["limits"] * 2**20 > MEASURED_BYTES + hot + bodies
    assert "cpu" not in container["resources"]["limits"]


def mebibytes(given: str) -> int:
    """Return a quantity of Kubernetes' in MiB."""
    return int(given[:-2]) * {"Mi": 1, "Gi": 1024}[given[-2:]]


def test_compose_confines_the_server():
    server = read(COMPOSE)["services"]["cacheproxy"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in server["security_opt"]
    assert not any("seccomp" in one for one in server["security_opt"])  # Docker's default holds


def test_images_can_be_named_by_their_digest():
    steps = list(instructions(DOCKERFILE))
    assert [words for name, words in steps if name == "FROM"] == ["${BASE} AS build", "${BASE}"]
    assert ("ARG", "BASE=python:3.12-slim-bookworm") in steps
    kustomization = read(KUBERNETES / "kustomization.yaml")
    (image,) = kustomization["images"]
    (container,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert image["name"] == container["image"]
    assert set(kustomization["resources"]) == {
        path.name
        for path in KUBERNETES.glob("*.yaml")
        if path.name not in {"kustomization.yaml", "podmonitor.yaml", "prometheus-adapter.yaml"}
    }
    (endpoint,) = read(KUBERNETES / "podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_a_pod_has_time_to_drain_and_to_finish():
    spec = manifests()["Deployment"]["spec"]["template"]["spec"]
    variables = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert spec["terminationGracePeriodSeconds"] >= float(variables["CACHEPROXY_DRAIN_S"]) + 40


def test_the_autoscaler_asks_for_a_figure_that_the_adapter_makes_of_series_that_there_are():
    (rule,) = read(KUBERNETES / "prometheus-adapter.yaml")["rules"]["custom"]
    (metric,) = manifests()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="n"')
    promql_parser.parse(query)
    known = {family.name for family in Metrics().registry.collect()}
    for name in re.findall(r"cacheproxy_\w+(?=\{)", query + rule["seriesQuery"]):
        assert re.sub(r"_(sum|count)$", "", name) in known


def test_systemd_takes_the_unit_and_finds_it_well_confined(tmp_path):
    analyze = need_program(
        "systemd-analyze", "systemd", "usr/bin/systemd-analyze", with_depends=True
    )
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/cacheproxy/bin/cacheproxy", "/bin/true"))

    def run(*arguments: str) -> str:
        command = [analyze.path, *arguments, unit]
        done = subprocess.run(command, capture_output=True, text=True, env=analyze.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert run("verify") == ""
    run("security", "--offline=true", "--threshold=20")  # 2.0 of 10
