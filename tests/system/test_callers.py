"""Who may call, and what one caller can see of another: nothing."""

import re
import subprocess
import sys

import openai
import pytest
from server_process import settled

MODEL = "all-MiniLM-L6-v2"


def make_key(tenant: str) -> tuple[str, str]:
    """Return a new key and its configuration lines, as the command prints them."""
    made = subprocess.run(
        [sys.executable, "-m", "cacheproxy", "key", tenant],
        check=True,
        capture_output=True,
        text=True,
    )
    return re.search(r"cp-\S+", made.stderr).group(), made.stdout


@pytest.fixture
def keyed(start_server, tmp_path):
    """A server with two tenants, and a key of each."""
    (acme, acme_lines), (zeta, zeta_lines) = make_key("acme"), make_key("zeta")
    config = tmp_path / "cacheproxy.toml"
    config.write_text(acme_lines + zeta_lines.replace("[api_keys]\n", ""))
    assert acme not in config.read_text()
    return start_server("--config", str(config)), acme, zeta


def cache_status(server, key, text, **headers):
    raw = server.client(api_key=key).embeddings.with_raw_response.create(
        input=text, model=MODEL, extra_headers=headers
    )
    return raw.headers["cache-status"]


def test_a_key_is_checked_before_any_lookup_and_even_for_what_is_cached(keyed):
    server, acme, _ = keyed
    cache_status(server, acme, "cached text")
    lookups = settled(lambda: server.metric("lookups_total"))

    with pytest.raises(openai.AuthenticationError):
        cache_status(server, "cp-wrong", "cached text")
    answer = server.http.post("/v1/embeddings", content=b"not even JSON")

    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert settled(lambda: server.metric("lookups_total")) == lookups


def test_one_tenant_never_sees_anothers_entries_whatever_namespace_it_names(keyed):
    server, acme, zeta = keyed
    cache_status(server, acme, "acme's text")
    cache_status(server, acme, "acme's text", **{"X-Cacheproxy-Namespace": "project"})

    assert "hit" in cache_status(server, acme, "acme's text")
    for name in ("default", "project", "acme", "acme/default", "acme/project", "../acme"):
        status = cache_status(server, zeta, "acme's text", **{"X-Cacheproxy-Namespace": name})
        assert "fwd=miss" in status


def test_no_key_stands_in_the_log(keyed):
    server, acme, _ = keyed
    cache_status(server, acme, "text")
    with pytest.raises(openai.AuthenticationError):
        cache_status(server, "cp-canary-secret", "text")
    server.stop()

    assert acme not in server.log
    assert "canary" not in server.log


def test_listening_beyond_loopback_without_keys_is_refused_with_exit_code_2(model_home):
    refused = subprocess.run(
        [sys.executable, "-m", "cacheproxy", "serve", "--host", "0.0.0.0", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 2
    assert "--allow-anonymous" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
