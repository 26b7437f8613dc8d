"""The admin listener of a real server."""

import json

import pytest
from asking import ask, heat, is_cached, run


@pytest.fixture
def operated(start_server):
    """A server with everything in memory, and a token."""
    return start_server(
        *("--admin-port", "0"), store="memory://", env={"CACHEPROXY_ADMIN_TOKEN": "geheim"}
    )


TOKEN = {"authorization": "Bearer geheim"}


def test_only_callers_with_the_token_are_served_and_errors_have_openais_format(operated):
    for path, given in (("/admin/stats", {}), ("/admin/nothing", {"authorization": "Bearer x"})):
        refused = operated.admin.get(path, headers=given)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    assert operated.admin.get("/admin/nothing", headers=TOKEN).status_code == 404
    assert operated.admin.get("/admin/purge", headers=TOKEN).status_code == 405
    assert operated.http.get("/admin/stats", headers=TOKEN).status_code == 404
    assert "geheim" not in operated.log


MISTAKEN = [
    (415, b'{"tenant":"t","namespace":"n","all":true}', "text/plain"),
    (400, b"", "application/json"),
    (400, b"[]", "application/json"),
    (400, b'{"namespace":"n","all":true}', "application/json"),
    (400, b'{"tenant":"t","namespace":"n"}', "application/json"),
    (400, b'{"tenant":"t","namespace":"n","all":true,"tag":"x"}', "application/json"),
    (400, b'{"tenant":"t","namespace":"n","tags":["x"]}', "application/json"),
    (400, b'{"tenant":"t","namespace":"n","key":"abc"}', "application/json"),
    (413, b" " * 300_000, "application/json"),
]


def test_what_names_no_purge_is_refused(operated):
    for status, body, content_type in MISTAKEN:
        headers = {**TOKEN, "content-type": content_type}
        answer = operated.admin.post("/admin/purge", content=body, headers=headers)
        assert answer.status_code == status, body
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_command_line_reaches_a_store_in_memory_through_its_server(
    operated, model_home, monkeypatch
):
    heat(operated, "it is in memory")
    ask(operated, "a namespace of its own", x_cacheproxy_namespace="a*|{}\\-@:,é")
    place = ("--home", str(model_home), "--store", "memory://")
    place += ("--admin-port", str(operated.admin.base_url.port))
    assert run("stats", *place).returncode == 69
    monkeypatch.setenv("CACHEPROXY_ADMIN_TOKEN", "geheim")
    figures = json.loads(run("stats", *place, "--json").stdout)
    assert figures["store"]["kind"] == "memory"
    assert figures["store"]["entries"] == 2
    assert figures["hot"]["entries"] == 2
    assert figures["lookups"]["hot"]["hit"] == 1
    told = run("stats", *place).stdout
    assert "default/default" in told
    assert "hits of 3 lookups" in told

    namespace = ("--namespace", "a*|{}\\-@:,é")
    assert run("purge", *place, *namespace, "--all").stdout == "entries removed: 1\n"
    assert is_cached(operated, "it is in memory")
    done = run("purge", *place, "--namespace", "default", "--text", "it is in memory")
    assert done.stdout == "entries removed: 1\n", done.stderr
    assert not is_cached(operated, "it is in memory")


def test_a_store_that_no_command_can_reach_is_told_of(model_home, tmp_path):
    place = ("--home", str(model_home), "--store")
    for url, said in (
        ("memory://", "admin.port"),
        (f"sqlite:///{tmp_path / 'none'}", "there is no file"),
    ):
        for command in (("stats",), ("purge", "--namespace", "default", "--all")):
            failed = run(*command, *place, url)
            assert failed.returncode == 2
            assert said in failed.stderr
            assert len(failed.stderr.splitlines()) == 1
    gone = run("purge", *place, "redis://127.0.0.1:1", "--namespace", "default", "--all")
    assert gone.returncode == 69


def test_a_listener_that_others_reach_needs_a_token(model_home):
    refused = run("serve", "--home", str(model_home), "--admin-port", "0", "--admin-host", "::")
    assert refused.returncode == 2
    assert "admin.token" in refused.stderr
