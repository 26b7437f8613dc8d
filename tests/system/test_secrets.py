"""What callers send, and what the server knows of secrets, is in nothing that others can read.

Not in log lines, metrics, errors, or the command line; not, with a key, in what the store keeps.
"""

import base64
import json
import socket
from pathlib import Path

import httpx
import pytest
from asking import MODEL, wait_until
from server_process import Server
from upstream import says

from cacheproxy.api.access.key_ring import hash_key

CANARY = "canary7c1e9b"
SECRET = f"the patient {CANARY} has asked how to reset the password of the account"
API_KEY = f"cp-{CANARY}"
UPSTREAM_KEY = f"up-{CANARY}"
EMBEDDINGS, CHAT = "/v1/embeddings", "/v1/chat/completions"


REDIS_PASSWORD = f"re-{CANARY}"
RECORD_KEY = base64.b64encode(f"{CANARY}-of-the-records".ljust(32).encode()).decode()
NEEDLES = (CANARY, RECORD_KEY)


@pytest.fixture
def redis(start_redis):
    return start_redis("--requirepass", REDIS_PASSWORD)


@pytest.fixture
def server(start_server, redis, upstream, tmp_path) -> Server:
    """A server that logs all that it ever would, as JSON, and knows a key."""
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[api_keys]\nacme = ["{hash_key(API_KEY)}"]\n'
        f'[upstreams.main]\nbase_url = "{upstream.url}"\napi_key = "{UPSTREAM_KEY}"\n'
        "first_byte_timeout_s = 0.5\nidle_timeout_s = 0.5\n"
    )
    flags = ["--config", str(config), "--admin-port", "0", "--limits-body-timeout-s", "0.3"]
    flags += ["--log-level", "debug", "--log-format", "json", "--log-requests", "all"]
    flags += ["--limits-inputs", "4", "--limits-characters", "2000", "--limits-body-bytes", "20000"]
    env = {"CACHEPROXY_ADMIN_TOKEN": f"t-{CANARY}", "CACHEPROXY_ENCRYPTION_KEYS": RECORD_KEY}
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis.port}"
    return start_server(*flags, store=url, env=env)


def body(**more) -> bytes:
    return json.dumps({"model": MODEL, "input": SECRET, **more}).encode()


MISTAKES: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "no JSON": (400, b'{"input": "' + SECRET.encode() + b'"', {}),
    "no UTF-8": (400, b'{"input": "' + SECRET.encode() + b'\xff"}', {}),
    "an object for a text": (400, body(input={SECRET: 1}), {}),
    "a word for a number": (400, body(dimensions=SECRET), {}),
    "a word that is not one of two": (400, body(encoding_format=SECRET), {}),
    "texts and ids": (400, body(input=[SECRET, 1]), {}),
    "dimensions that are too many": (400, body(dimensions=100_000), {}),
    "too many inputs": (422, body(input=[SECRET] * 5), {}),
    "a text that is too long": (422, body(input=SECRET * 100), {}),
    "a body that is too long": (413, body(user=SECRET * 1_000), {}),
    "a compressed body": (415, body(), {"content-encoding": CANARY}),
    "a miss where none is wanted": (
        504,
        body(input=f"{SECRET}!"),
        {"cache-control": "only-if-cached"},
    ),
    "an age that is none": (400, body(), {"cache-control": f"max-age={CANARY}"}),
    "a life that is none": (400, body(), {"x-cacheproxy-ttl": CANARY}),
    "a similarity that is none": (400, body(), {"x-cacheproxy-min-similarity": CANARY}),
    "neither on nor off": (400, body(), {"x-cacheproxy-semantic": CANARY}),
    "tags that are none": (400, body(), {"x-cacheproxy-tags": f"{CANARY}?"}),
    "a namespace without end": (400, body(), {"x-cacheproxy-namespace": CANARY * 40}),
    "an unknown key": (401, body(), {"authorization": f"Bearer wrong-{CANARY}"}),
    "no key": (401, body(), {"authorization": CANARY}),
}


def chat(**more) -> bytes:
    messages = [{"role": "user", "content": SECRET}]
    return json.dumps({"model": "gpt-test", "messages": messages, **more}).encode()


CHAT_MISTAKES: dict[str, tuple[int, bytes]] = {
    "no JSON": (400, chat()[:-1]),
    "a model that is none": (400, chat(model={SECRET: 1})),
    "no object": (400, b"[" + chat() + b"]"),
}


async def breaks_off(exchange) -> None:
    exchange.break_off()


async def stalls(exchange) -> None:
    await exchange.left.wait()


def test_a_secret_is_in_nothing_that_the_server_says(server, redis, upstream):
    told: list[str] = []
    http = httpx.Client(
        base_url=server.url,
        timeout=30,
        headers={
            "authorization": f"Bearer {API_KEY}",
            "x-cacheproxy-namespace": CANARY,
            "x-request-id": f"{CANARY} with spaces",
            "traceparent": f"00-{CANARY}",
            "tracestate": f"x={CANARY}",
            "user-agent": CANARY,
            "cookie": CANARY,
        },
    )

    # Answers that hold what was asked for are the caller's own; the others are told.
    def ask(status: int, content: bytes, headers: dict[str, str], path: str = EMBEDDINGS) -> None:
        answer = http.post(path, content=content, headers=headers)
        assert answer.status_code == status, answer.text
        told.append(f"{dict(answer.headers)} {answer.text if status != 200 else ''}")

    for _ in range(2):
        ask(200, body(), {"x-cacheproxy-tags": CANARY})
    ask(200, json.dumps({"texts": [SECRET]}).encode(), {}, "/embed")
    for status, content, headers in MISTAKES.values():
        ask(status, content, headers)
    for _ in range(2):
        ask(200, chat(), {}, CHAT)
    ask(200, chat(stream=True), {"cache-control": "no-store"}, CHAT)
    for status, content in CHAT_MISTAKES.values():
        ask(status, content, {}, CHAT)
    upstream.plan.extend(
        [breaks_off, breaks_off, stalls, says(200, f"{CANARY} is no JSON".encode())]
    )
    for status in (502, 504, 502):
        ask(status, chat(temperature=0.5, seed=status), {"cache-control": "no-store"}, CHAT)
    upstream.plan.append(says(404, b"{}"))
    ask(404, body(), {}, f"/v1/{CANARY}?q={CANARY}")
    told.append(http.get(f"{EMBEDDINGS}?{CANARY}").text)
    told.append(raw(server, f"POST {EMBEDDINGS} HTTP/1.1 {CANARY}\r\n\r\n"))
    told.append(raw(server, f"{CANARY}\r\n\r\n"))
    told.append(raw(server, started(f'{{"input": "{SECRET}')))
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)
    kept = redis.client(password=REDIS_PASSWORD)
    values = {name: kept.hgetall(name) for name in kept.scan_iter("cp:e*")}
    assert len(values) >= 2
    told.append(repr(values))
    told.append(Path(f"/proc/{server.process.pid}/cmdline").read_text())
    for path in ("stats", "thresholds", "live", "purge", CANARY):
        wrong = {"authorization": f"Bearer x-{CANARY}"}
        told.append(server.admin.get(f"/admin/{path}", headers=wrong).text)
    order = {"tenant": "acme", "namespace": CANARY, "text": SECRET}
    token = {"authorization": f"Bearer t-{CANARY}"}
    told.append(server.admin.post("/admin/purge", json=order, headers=token).text)

    redis.stop()
    for number in range(12):
        ask(200, body(input=f"{SECRET} {number}"), {"x-cacheproxy-tags": CANARY})
    refused = server.admin.post("/admin/purge", json=order, headers=token)
    assert refused.status_code == 503
    told += [refused.text, http.get("/metrics").text]
    told += [server.admin.get(f"/admin/{path}", headers=token).text for path in ("live", "stats")]

    wait_until(lambda: server.log.count('"message":"request"') >= len(MISTAKES) + 12)
    assert [one for one in told if any(needle in one for needle in NEEDLES)] == []
    server.stop()
    assert [line for line in server.lines if any(needle in line for needle in NEEDLES)] == []


def started(content: str) -> str:
    """Return a request whose body never comes to its end."""
    head = f"POST {EMBEDDINGS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\n"
    return f"{head}content-length: 1000\r\n\r\n{content}"


def raw(server: Server, text: str) -> str:
    """Return all that the server answers to these bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text.encode())
        connection.settimeout(20)
        answer = connection.recv(65_536)
    return answer.decode("latin-1")
