"""Operating by the built-in page, in a real browser: namespaces, entries, requests, workers."""

import json
import os
from collections import Counter
from pathlib import Path

import httpx
import pytest
from asking import MODEL, wait_until
from browser import Browser
from chatting import body_for
from server_process import Server, sum_of
from topics import TOPICS, rewording, teach

TOKEN = "sesame"  # noqa: S105
OPERATOR = {"authorization": f"Bearer {TOKEN}"}
SETTINGS = """
[prices.gpt-test]
prompt = 2.0
completion = 8.0

[namespace_ttl_s.default]
docs = 3600
support = 7200
"""
FLAGS = ("--semantic-mode", "on", "--semantic-max-error", "0.05", "--chat-max-error", "0.2")
SCREENS = {
    "light": (1280, 1000, False),
    "dark": (1280, 1000, True),
    "phone": (390, 844, False),
    "phone-dark": (390, 844, True),
}
AT_HAND = os.environ.get("CACHEPROXY_TEST_NODE_CLIENTS")
NONE = "\N{EN DASH}"
HEARTY = "how do I change my order when it was sent already"


@pytest.fixture(scope="module")
def busy(model_home, upstream, tmp_path_factory):
    """A server of two workers with traffic of several namespaces and models."""
    folder = tmp_path_factory.mktemp("busy")
    (folder / "settings.toml").write_text(SETTINGS)
    flags = (*FLAGS, "--workers", "2", "--admin-port", "0", "--upstream", upstream.url)
    server = Server(
        model_home,
        f"sqlite:///{folder / 'cache.sqlite'}",
        *("--drain-s", "0", "--config", str(folder / "settings.toml"), *flags),
        env={"CACHEPROXY_ADMIN_TOKEN": TOKEN},
    )
    server.admin.headers.update(OPERATOR)
    for number in range(36):
        for name, kinds in (("docs", 8), ("support", 20), (f"of-user-{number % 3}", 4)):
            embed(server, f"{HEARTY}, number {number % kinds}", namespace=name)
    for question in ("Why is the sky blue?", "What is a cache?", "Who was Ada Lovelace?"):
        for _ in range(4):
            response = chat(server, question)
            assert response.status_code == 200, response.text
    server.http.post("/v1/embeddings", json={"input": "x", "model": "nobody-has-it"})
    upstream.always = rewording()
    teach(server, TOPICS[:8])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def page(busy):
    """The page of that server, after the token was given."""
    with Browser() as browser:
        browser.look(*SCREENS["light"][:2])
        browser.open(f"{busy.admin_url}/admin/")
        browser.until("!document.getElementById('ask').hidden")
        browser.value(f"document.getElementById('token').value = {json.dumps(TOKEN)}")
        browser.value("document.querySelector('#ask button').click()")
        browser.until("samples.length > 1 && workers.length === 2 && semantic !== null")
        yield browser
        assert browser.said == []


def fresh(server: Server) -> httpx.Client:
    """Return a client with a connection of its own, which any of the workers may get."""
    return httpx.Client(base_url=server.url, timeout=60)


def embed(server: Server, text: str, namespace: str = "default", **headers: str) -> httpx.Response:
    with fresh(server) as client:
        return client.post(
            "/v1/embeddings",
            json={"input": text, "model": MODEL},
            headers={"x-cacheproxy-namespace": namespace, **headers},
        )


def chat(server: Server, question: str, **headers: str) -> httpx.Response:
    body = body_for(question, temperature=0)
    return server.http.post("/v1/chat/completions", json=body, headers=headers)


def put(page: Browser, field: str, value: str) -> None:
    page.value(
        f"((one) => {{ one.value = {json.dumps(value)};"
        " one.dispatchEvent(new Event('change')); one.dispatchEvent(new Event('input')); })"
        f"(document.getElementById('{field}'))"
    )


def text_of(page: Browser, element: str) -> str:
    return page.value(f"document.getElementById('{element}').innerText")


def find(page: Browser, kind: str, namespace: str = "default", **fields: str) -> str:
    """Look an entry up on the page; return what the page says."""
    assert page.value("document.getElementById('find-go').checkVisibility()")
    for field, value in {"namespace": namespace, "kind": kind, **fields}.items():
        put(page, f"find-{field}", value)
    page.value("document.getElementById('find-go').click()")
    page.until("!/^(Looking…|)$/.test(document.getElementById('find-said').textContent)")
    return text_of(page, "find-said")


def hot_in(server: Server, text: str, namespace: str) -> list[int]:
    asked = {"tenant": "default", "namespace": namespace, "text": text}
    entries = server.admin.post("/admin/find", json=asked).json()["entries"]
    return entries[0]["hot_in"] if entries else []


def test_a_purge_by_text_takes_the_entry_away_in_all_workers(busy, page):
    text, namespace = f"{HEARTY}, and I want it gone", "support"

    def is_hot_everywhere() -> bool:
        embed(busy, text, namespace)
        return len(hot_in(busy, text, namespace)) == 2

    wait_until(is_hot_everywhere)
    assert sorted(hot_in(busy, text, namespace)) == sorted(busy.worker_pids())

    assert find(page, "text", namespace, text=text) == "One entry."
    shown = text_of(page, "found")
    for fact in (MODEL, "2 of 2 workers", "store", "default/support", "384", "left of", "yes"):
        assert fact in shown
    assert text not in shown
    page.value("document.querySelector('#found button.danger').click()")
    page.until("document.getElementById('purge').open")
    assert page.value("document.activeElement.id") == "purge-no"
    page.value("document.getElementById('purge-no').click()")
    assert len(hot_in(busy, text, namespace)) == 2
    page.value("document.querySelector('#found button.danger').click()")
    page.value("document.getElementById('purge-yes').click()")
    page.until("document.getElementById('find-said').textContent.startsWith('Purged')")

    assert text_of(page, "found") == ""
    assert find(page, "text", namespace, text=text).startswith("There is no such entry")
    cached_only = {"cache-control": "only-if-cached, no-store", "x-cacheproxy-semantic": "off"}
    statuses = {embed(busy, text, namespace, **cached_only).status_code for _ in range(16)}
    assert statuses == {504}
    log = busy.log
    assert "'action': 'purge'" in log or '"action":"purge"' in log or "action=purge" in log
    assert text not in log


def test_a_chat_entry_is_found_by_its_request_and_by_its_key(busy, page):
    question = "Why is the sky blue?"
    answer = chat(busy, question)
    key = answer.headers["x-cacheproxy-entry"]

    assert find(page, "request", request=json.dumps(body_for(question, temperature=0))) == (
        "One entry."
    )
    by_request = text_of(page, "found")
    assert find(page, "key", key=key) == "One entry."

    assert key in by_request
    assert "Completion · gpt-test" in by_request
    assert question not in by_request
    assert answer.json()["choices"][0]["message"]["content"] not in by_request
    assert find(page, "request", request="{") == text_of(page, "find-said")
    assert "not JSON" in text_of(page, "find-said")
    assert find(page, "key", "docs", key=key).startswith("There is no such entry")


TIERS = ("hot", "exact", "semantic")

TABLE = """[...document.querySelectorAll("#namespaces tr")]
    .map((row) => [...row.children].map((cell) => cell.innerText.trim()))"""


def test_the_namespaces_figures_are_those_of_the_metrics(busy, page):
    def expected() -> dict[tuple[str, str], list[str]]:
        counted: dict[tuple[str, str], Counter] = {}
        told = busy.http.get("/metrics").text
        for one in busy.admin.get("/admin/namespaces").json()["namespaces"]:
            named = f"{one['tenant']}/{one['name']}" if one["tenant"] else one["namespace"]
            labels = {"model": one["model"], "namespace": one["namespace"]}
            counts = counted[named, one["model"]] = Counter()
            counts["tokens"] = int(sum_of(told, "namespace_saved_tokens_total", **labels))
            counts["cost"] = sum_of(told, "namespace_saved_cost_total", **labels)
            for tier in TIERS:
                answers = sum_of(told, "namespace_answers_total", outcome=tier, **labels)
                counts[tier] = int(answers)
            misses = sum_of(told, "namespace_answers_total", outcome="miss", **labels)
            counts["lookups"] = int(misses) + sum(counts[one] for one in TIERS)
        # The first chat request was looked up before it was known that an upstream has its model.
        for model, labels_of_lookups in ((MODEL, [MODEL]), ("gpt-test", ["gpt-test", "other"])):
            ours = [counts for (_, one), counts in counted.items() if one == model]
            assert sum(one["lookups"] for one in ours) == sum(
                sum_of(told, "lookups_total", model=label, tier="hot")
                for label in labels_of_lookups
            )
            for tier in TIERS:
                labels = {"model": model, "tier": tier, "result": "hit"}
                assert sum(one[tier] for one in ours) == sum_of(told, "lookups_total", **labels)
        cost = sum(one["cost"] for one in counted.values())
        assert cost == pytest.approx(sum_of(told, "saved_cost_total"))
        return {
            named: [
                f"{one['lookups']:,}",
                *(f"{100 * one[tier] / one['lookups']:.1f} %" for tier in TIERS),
                f"{one['tokens']}" if one["tokens"] else NONE,
                f"{one['cost']:.4f}" if one["cost"] else NONE,
            ]
            for named, one in counted.items()
        }

    def shown() -> dict[tuple[str, str], list[str]]:
        rows = page.value(TABLE)
        return {(row[0], row[1]): [row[2], *row[4:7], *row[8:10]] for row in rows}

    figures = expected()
    assert {MODEL, "gpt-test"} <= {model for _, model in figures}
    assert len(figures) >= 6
    wait_until(lambda: shown() == figures)

    page.value("document.querySelector('#namespaces-head [data-id=lookups] button').click()")
    assert page.value("document.querySelector('#namespaces-head [data-id=lookups]').ariaSort") == (
        "ascending"
    )
    lookups = [int(row[2].replace(",", "")) for row in page.value(TABLE)]
    assert lookups == sorted(lookups)
    put(page, "namespaces-filter", "support")
    assert [row[0] for row in page.value(TABLE)] == ["default/support"]
    put(page, "namespaces-filter", "")


def test_the_figures_tell_of_the_semantic_tier_what_all_workers_know(busy):
    expected = busy.admin.get("/admin/thresholds").json()

    for _ in range(8):  # connections of their own, for both workers
        told = httpx.get(f"{busy.admin.base_url}/admin/stats", headers=OPERATOR).json()
        assert told["semantic"] == expected


def test_a_namespace_tells_its_story(page):
    page.value(
        "[...document.querySelectorAll('#namespaces tr')]"
        ".find((row) => row.children[1].innerText === 'gpt-test').querySelector('button').click()"
    )
    page.until("!document.getElementById('story').hidden")

    # Thresholds are asked for every ten seconds.
    page.until("/^(learning|open|closed):/.test(document.getElementById('story-words').innerText)")
    assert "at most 20" in text_of(page, "story-facts")
    assert text_of(page, "story-changes").strip()
    assert "No hit was found to be wrong." in text_of(page, "story-wrong")


def test_requests_and_workers_of_all_processes_are_shown_without_texts(busy, page):
    def tail() -> list[dict]:
        embed(busy, HEARTY, "docs")
        return busy.admin.get("/admin/requests").json()["requests"]

    wait_until(lambda: {one["worker"] for one in tail()} == set(busy.worker_pids()))
    page.until("document.querySelectorAll('#requests tr').length > 5")
    page.until("document.querySelectorAll('#workers tr').length === 2")
    page.until("document.querySelectorAll('#upstreams tr').length === 1")
    requests = tail()
    assert any(one["status"] == 404 for one in requests)
    assert {"embeddings", "chat"} <= {one["route"] for one in requests}
    assert HEARTY not in json.dumps(requests)
    page.value("document.getElementById('requests-failed').click()")
    page.until(
        "[...document.querySelectorAll('#requests tr')]"
        ".every((row) => row.children[5].innerText >= '400')"
    )
    page.value("document.getElementById('requests-failed').click()")
    pids = page.value("[...document.querySelectorAll('#workers th')].map((one) => +one.innerText)")
    assert sorted(pids) == sorted(busy.worker_pids())


@pytest.mark.skipif(AT_HAND is None, reason="axe is installed by .ci/run, in its Node folder")
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_no_serious_violation(busy, page, tmp_path, screen):
    width, height, dark = SCREENS[screen]
    page.look(width, height, dark=dark)
    find(page, "text", "docs", text=f"{HEARTY}, number 3")
    page.value("show()")
    assert page.value("document.documentElement.scrollWidth") == width
    folder = Path(os.environ.get("CACHEPROXY_TEST_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(folder / f"operating-{screen}.png")

    axe = Path(AT_HAND) / "node_modules/axe-core/axe.min.js"
    page.value(f"{axe.read_text()}\n; 0")
    found = page.value("axe.run(document).then((one) => JSON.stringify(one.violations))")
    grave = [
        (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]][:4])
        for one in json.loads(found)
        if one["impact"] in ("serious", "critical")
    ]
    assert grave == []


def test_only_operators_of_all_tenants_look_inside(busy):
    stranger = httpx.Client(base_url=busy.admin_url)
    asked = {"tenant": "default", "namespace": "docs", "text": HEARTY}
    assert stranger.post("/admin/find", json=asked).status_code == 401
    for path in ("namespaces", "workers", "requests", "wrong-hits"):
        assert stranger.get(f"/admin/{path}").status_code == 401
