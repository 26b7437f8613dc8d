"""Tenants on one server: what keys allow, what limits refuse, and what one can do to another."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from raw_http import Connection
from server_process import Server, settled

from cacheproxy.api.access.key_ring import hash_key
from cacheproxy.keys import Namespace, short_id

MODEL = "all-MiniLM-L6-v2"

SETTINGS = """
[tenants.rated]
requests_per_minute = 60

[tenants.wordy]
tokens_per_minute = 600

[tenants.narrow]
in_flight = 1

[tenants.split.namespace_limits.reports]
requests_per_minute = 60

[tenants.split.namespace_limits."*"]
tokens_per_minute = 600
"""


def key_lines(**tenants: str) -> str:
    return "".join(f"{tenant} = [{keys}]\n" for tenant, keys in tenants.items())


def plain(*keys: str) -> str:
    return ", ".join(f'"{hash_key(key)}"' for key in keys)


def scoped(key: str, *scopes: str, more: str = "") -> str:
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    return f'{{hash = "{hash_key(key)}", id = "id-of-{key}", scopes = [{listed}]{more}}}'


KEYS = key_lines(
    acme=", ".join(
        (
            plain("acme"),
            scoped("reader", "read"),
            scoped("writer", "write"),
            scoped("purger", "purge"),
            scoped("late", "read", "write", more=", expires_at = 2020-01-01T00:00:00Z"),
        )
    ),
    ops=scoped("ops", "admin"),
    **{tenant: plain(tenant) for tenant in ("zeta", "rated", "wordy", "narrow", "split")},
)


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    file.write_text(KEYS)
    return file


@pytest.fixture(scope="module")
def server(model_home, keys_file):
    config = keys_file.with_name("cacheproxy.toml")
    config.write_text(SETTINGS)
    server = Server(
        *(model_home, "memory://", "--drain-s", "0", "--admin-port", "0"),
        *("--config", str(config), "--api-keys-file", str(keys_file), "--log-format", "json"),
        *("--limits-connections", "20"),
    )
    yield server
    assert server.stop() == 0, server.log


def ask(server, key: str, text="a text", **headers):
    return server.http.post(
        "/v1/embeddings",
        json={"model": MODEL, "input": text},
        headers={"Authorization": f"Bearer {key}", **headers},
    )


def status_of(server, key: str, text: str) -> str:
    answer = ask(server, key, text)
    assert answer.status_code == 200, answer.text
    return answer.headers["cache-status"]


def eventually(is_so) -> None:
    deadline = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def replace(file, text: str) -> None:
    file.with_suffix(".new").write_text(text)
    os.replace(file.with_suffix(".new"), file)


def test_keys_come_and_go_without_a_restart_and_a_broken_file_changes_nothing(server, keys_file):
    assert ask(server, "rotated").status_code == 401
    replace(keys_file, KEYS.replace(plain("zeta"), plain("zeta", "rotated")))
    eventually(lambda: ask(server, "rotated").status_code == 200)

    replace(keys_file, "zeta = [")
    eventually(lambda: server.metric("key_reloads_total", result="failed") == 1)
    assert ask(server, "rotated").status_code == 200

    replace(keys_file, KEYS)
    eventually(lambda: ask(server, "rotated").status_code == 401)
    assert ask(server, "zeta").status_code == 200
    assert "API keys stay as they are" in server.log


def test_a_key_is_valid_until_it_expires(server):
    refused = ask(server, "late")

    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_key_that_may_only_read_gets_hits_and_leaves_nothing_behind(server):
    assert "fwd=miss" in status_of(server, "reader", "what a reader asks for first")
    assert "fwd=miss" in status_of(server, "reader", "what a reader asks for first")
    assert "fwd=miss" in status_of(server, "acme", "what a reader asks for first")
    assert "hit" in status_of(server, "reader", "what a reader asks for first")


def test_a_key_that_may_only_write_gets_no_cached_answer(server):
    assert "fwd=request" in status_of(server, "writer", "what a writer writes")
    assert "fwd=request" in status_of(server, "writer", "what a writer writes")
    assert "hit" in status_of(server, "acme", "what a writer writes")


def test_a_key_without_read_and_write_cannot_ask(server):
    refused = ask(server, "purger")

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")


def purge(server, key: str, tenant: str, **what):
    return server.admin.post(
        "/admin/purge",
        json={"tenant": tenant, "namespace": "default", **what},
        headers={"Authorization": f"Bearer {key}"},
    )


def test_purges_need_a_scope_and_are_logged_with_the_key_s_id_and_without_texts(server):
    private = "a text that no log may hold"
    ask(server, "acme", private)
    ask(server, "zeta", private)

    assert purge(server, "zeta", "acme", text=private).status_code == 403
    assert purge(server, "purger", "zeta", all=True).status_code == 403
    assert purge(server, "reader", "acme", all=True).status_code == 401
    assert server.admin.get("/admin/stats").status_code == 401
    assert purge(server, "purger", "acme", text=private).json() == {"removed": 1}
    assert purge(server, "ops", "zeta", text=private).json() == {"removed": 1}
    authorization = {"Authorization": "Bearer ops"}
    assert server.admin.get("/admin/stats", headers=authorization).status_code == 200

    def logged(result: str) -> list[dict]:
        # The last line may be half there: the log comes through a pipe.
        whole = [line for line in server.log.splitlines(keepends=True) if line.endswith("}\n")]
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        actions = [line for line in lines if line["logger"] == "cacheproxy.admin_actions"]
        return [line for line in actions if line["result"] == result]

    def purges() -> list[tuple]:
        found = [line for line in logged("done") if line["action"] == "purge"]
        return [(line["by"], line["tenant"], line["what"], line["removed"]) for line in found]

    eventually(lambda: len(purges()) == 2)
    assert purges() == [("id-of-purger", "acme", "text", 1), ("id-of-ops", "zeta", "text", 1)]
    refused = logged("refused")
    assert [line["by"] for line in refused] == [hash_key("zeta")[7:15], "id-of-purger", "unknown"]
    assert private not in server.log
    assert "purger" not in server.log.replace("id-of-purger", "")


def test_only_operators_of_all_tenants_find_entries_and_each_look_is_logged(server):
    private = "what only acme has"
    ask(server, "acme", private)

    def find(key: str, tenant: str = "acme"):
        asked = {"tenant": tenant, "namespace": "default", "text": private}
        headers = {"Authorization": f"Bearer {key}"}
        return server.admin.post("/admin/find", json=asked, headers=headers)

    assert find("reader").status_code == 401
    assert find("acme").status_code == 403
    assert find("purger").status_code == 403
    (found,) = find("ops").json()["entries"]
    assert (found["model"], found["facts"]["dimensions"]) == (MODEL, 384)
    assert find("ops", "zeta").json()["entries"] == []
    eventually(lambda: len(re.findall(r'"action": ?"find"', server.log)) == 2)
    assert private not in server.log


def test_requests_beyond_a_tenant_s_rate_get_429_and_nobody_else_notices(server):
    answers = [ask(server, "rated") for _ in range(8)]

    assert [answer.status_code for answer in answers[:6]] == [200] * 6
    refused = answers[-1]
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert server.metric("shed_total", reason="tenant") >= 1
    assert ask(server, "zeta").status_code == 200


def test_tokens_beyond_a_tenant_s_rate_get_429_but_hits_cost_none(server):
    words = " ".join(["word"] * 50)
    assert ask(server, "wordy", words).status_code == 200
    assert ask(server, "wordy", words + " more").status_code == 429
    for _ in range(20):
        assert ask(server, "wordy", words).status_code == 200


def test_requests_beyond_a_namespace_s_rate_get_429_and_its_tenant_s_others_do_not(server):
    reports = {"X-Cacheproxy-Namespace": "reports"}
    answers = [ask(server, "split", **reports) for _ in range(8)]

    assert [answer.status_code for answer in answers[:6]] == [200] * 6
    assert answers[-1].status_code == 429
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert "this namespace" in answers[-1].json()["error"]["message"]
    assert server.metric("shed_total", reason="namespace") >= 1
    assert ask(server, "split").status_code == 200
    assert ask(server, "zeta", **reports).status_code == 200


def test_new_names_bring_a_tenant_no_more_than_its_other_namespaces_have_together(server):
    words = " ".join(["word"] * 50)
    codes = [
        ask(server, "split", words, **{"X-Cacheproxy-Namespace": f"new {n}"}).status_code
        for n in range(4)
    ]
    assert codes[0] == 200
    assert codes[1:] == [429] * 3


def test_requests_in_flight_beyond_a_tenant_s_limit_get_429(server):
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer narrow\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    with ExitStack() as waiting:

        def is_full() -> bool:
            # One of them may come while the other request is in flight, and be refused itself.
            waiting.enter_context(Connection(server.url)).send(head)
            return ask(server, "narrow").status_code == 429

        eventually(is_full)
        assert ask(server, "zeta").status_code == 200
    eventually(lambda: ask(server, "narrow").status_code == 200)


def test_probes_are_answered_by_the_admin_listener_when_no_more_connections_are(server):
    server.http.close()
    del server.http
    with ExitStack() as open_connections:
        for _ in range(20):
            open_connections.enter_context(Connection(server.url))
        with Connection(server.url) as one_more:
            assert one_more.read().status == 503
        for path in ("/healthz", "/readyz"):
            assert server.admin.get(path).status_code == 200


def test_json_that_swells_when_it_is_parsed_is_refused_before_it_is(server):
    body = b'{"model": "m", "input": [' + b"[]," * 600_000 + b"[]]}"
    refused = server.http.post(
        "/v1/embeddings", content=body, headers={"Authorization": "Bearer zeta"}
    )

    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


def test_what_another_tenant_has_cached_takes_the_same_way_as_what_nobody_has(server):
    # What cannot be told by its way cannot be told by its time.
    for _ in range(2):
        ask(server, "acme", "the price of the red ticket")
    assert "detail=hot" in status_of(server, "acme", "the price of the red ticket")

    assert way_of(server, "zeta", "the price of the red ticket") == way_of(
        server, "zeta", "the price of the old ticket"
    )


def way_of(server, key: str, text: str) -> tuple:
    """Return what a request was told, its stages, and what it was counted as."""
    names = ("lookups_total", "batch_texts_sum", "batch_tokens_sum", "stage_duration_seconds_count")

    def counted() -> dict[str, float]:
        lines = server.http.get("/metrics").text.splitlines()
        told = (
            line.rsplit(" ", 1)
            for line in lines
            if line.removeprefix("cacheproxy_").startswith(names)
        )
        return {series: float(value) for series, value in told}

    before = settled(counted)
    answer = ask(server, key, text, **{"X-Cacheproxy-Semantic": "off"})
    grown = {series: value - before.get(series, 0.0) for series, value in settled(counted).items()}
    stages = [one.partition(";")[0].strip() for one in answer.headers["server-timing"].split(",")]
    told = answer.headers["cache-status"].partition("; ttl")[0]
    # Whether a probe is made for what is kept depends on how busy the machine is.
    stages = [stage for stage in stages if stage != "probe"]
    return told, stages, {one: more for one, more in grown.items() if more and "probe" not in one}


def test_a_flood_of_names_takes_neither_hits_nor_evidence_from_another_tenant(server):
    known = [f"what is the price of the {number}th ticket to the harbour" for number in range(40)]
    for text in known:
        ask(server, "acme", text, **{"X-Cacheproxy-Namespace": "shop"})
    shop = short_id(Namespace("acme", "shop").id)
    needed = server.metric("semantic_pairs_needed", namespace=shop)

    def flood(number: int) -> int:
        texts = [f"{text} {number}" for text in known[:4]]
        headers = {"X-Cacheproxy-Namespace": f"n{number}", "X-Cacheproxy-Tags": f"t{number}"}
        return ask(server, "zeta", texts, **headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(flood, range(100))) == {200}
    assert server.metric("semantic_pairs_needed", namespace=shop) == needed > 0
    for text in known:
        answer = ask(server, "acme", text, **{"X-Cacheproxy-Namespace": "shop"})
        assert "hit" in answer.headers["cache-status"]


def test_a_tenant_whose_requests_hang_at_the_upstream_leaves_connections_to_others(
    start_server, upstream, tmp_path
):
    config = tmp_path / "cacheproxy.toml"
    keys = key_lines(acme=plain("acme"), zeta=plain("zeta"))
    upstreams = f'[upstreams.u]\nbase_url = "{upstream.url}"\nconnections = 4\n'
    config.write_text(f"[api_keys]\n{keys}{upstreams}")
    server = start_server("--config", str(config))

    def chat(key: str, text: str) -> int:
        return server.http.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": text}]},
            headers={"Authorization": f"Bearer {key}"},
        ).status_code

    async def hangs(exchange) -> None:
        await exchange.left.wait()

    upstream.plan.extend([hangs, hangs])
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer zeta\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    with ExitStack() as hanging:
        for number in range(2):
            body = b'{"model":"m","messages":[{"role":"user","content":"hang %d"}]}' % number
            hanging.enter_context(Connection(server.url)).send(head % len(body) + body)
        eventually(lambda: not upstream.plan)
        assert chat("zeta", "one more") == 429
        assert chat("acme", "a question") == 200
    eventually(lambda: chat("zeta", "again") == 200)
