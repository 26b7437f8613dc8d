"""The built-in page in a real browser: what it shows is what the metrics say."""

import json
import os
from pathlib import Path

import pytest
from asking import ask, wait_until
from browser import Browser
from server_process import Server
from topics import TOPICS, rewording, teach

TOKEN = "sesame"  # noqa: S105
PROMISED = ("--semantic-mode", "on", "--semantic-max-error", "0.05")
SCREENS = {"light": (1280, 1000, False), "dark": (1280, 1000, True), "phone": (390, 844, False)}


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where pictures go: a folder to look at, if one is given."""
    folder = Path(os.environ.get("CACHEPROXY_TEST_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ask_around(server: Server) -> None:
    for number in range(40):
        for name in ("docs", "support"):
            ask(server, f"how do I change order {number % 15}", x_cacheproxy_namespace=name)


def totals_of(server: Server) -> dict[str, int]:
    def hits(tier: str) -> float:
        return server.metric("lookups_total", tier=tier, result="hit")

    counted = {
        "requests": server.metric("requests_total"),
        "texts": server.metric("lookups_total", tier="hot"),
        **{tier: hits(tier) for tier in ("hot", "exact", "semantic")},
        "inferred": server.inferred(),
    }
    return {name: int(value) for name, value in counted.items()}


SHOWN = """Object.fromEntries([...document.querySelectorAll("[data-total]")]
    .map((one) => [one.dataset.total, Number(one.textContent.replace(/,/g, ""))]))"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_page_shows_what_the_metrics_say(start_server, browser, screenshots, workers):
    server = start_server("--admin-port", "0", "--workers", workers, *PROMISED)
    browser.look(*SCREENS["light"][:2])
    browser.open(f"{server.admin_url}/admin/")
    browser.until("samples.length > 1")
    ask_around(server)

    expected = totals_of(server)
    wait_until(lambda: browser.value(SHOWN) == expected)
    browser.until("document.querySelectorAll('#plot-tiers path').length === 4")
    assert expected["requests"] == 80
    assert browser.value("document.getElementById('state').textContent") == "all well"
    for name, (width, height, dark) in SCREENS.items():
        browser.look(width, height, dark=dark)
        browser.value("show()")
        assert browser.value("document.documentElement.scrollWidth") == width
        browser.screenshot(screenshots / f"page-{workers}-{name}.png")
    assert browser.said == []


def test_light_and_dark_differ_as_the_reader_wishes(server_with_page, browser):
    browser.open(server_with_page)
    colours = set()
    for dark in (False, True):
        browser.look(1280, 1000, dark=dark)
        colours.add(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


@pytest.fixture
def server_with_page(start_server) -> str:
    return f"{start_server('--admin-port', '0').admin_url}/admin/"


def test_the_page_asks_for_the_token_and_shows_no_figures_without_it(start_server, browser):
    env = {"CACHEPROXY_ADMIN_TOKEN": TOKEN}
    server = start_server("--admin-port", "0", env=env)
    for path in ("live", "thresholds", "stats"):
        assert server.admin.get(f"/admin/{path}").status_code == 401

    def enter(token: str) -> None:
        browser.value(f"document.getElementById('token').value = {json.dumps(token)}")
        browser.value("document.querySelector('form button').click()")

    browser.open(f"{server.admin_url}/admin/")
    browser.until("!document.getElementById('ask').hidden")
    assert browser.value("document.getElementById('all').hidden")
    enter("wrong")
    browser.until("document.getElementById('why').textContent.includes('not this server')")
    assert browser.value("document.getElementById('all').hidden")
    enter(TOKEN)
    browser.until("!document.getElementById('all').hidden")
    browser.until("document.getElementById('state').textContent === 'all well'")


def test_the_page_may_load_nothing_from_anywhere_else(server_with_page, browser):
    browser.open(server_with_page)
    browser.until("samples.length > 0")
    seen = len(browser.said)

    browser.value("fetch('http://127.0.0.2:1/').catch(() => null)")
    browser.value("void (document.body.appendChild(document.createElement('script')).text = '1')")

    told = "".join(browser.said[seen:])
    assert "connect-src" in told
    assert "script-src" in told


def test_a_store_that_is_away_is_on_the_page(start_server, start_redis, browser):
    redis = start_redis()
    server = start_server("--admin-port", "0", store=redis.url)
    browser.open(f"{server.admin_url}/admin/")
    browser.until("document.getElementById('state').textContent === 'all well'")

    redis.stop()
    for number in range(20):
        ask(server, f"nobody has asked this before: {number}")
    browser.until("document.getElementById('state').textContent.startsWith('store away')")
    browser.until("document.getElementById('store').textContent.includes('breaker open')")


def test_the_page_says_where_the_chat_tier_stands(start_server, upstream, browser, screenshots):
    upstream.always = rewording()
    flags = ("--chat-max-error", "0.2", "--chat-learning-share", "1", "--chat-open-share", "1")
    server = start_server("--admin-port", "0", "--upstream", upstream.url, *flags)
    browser.look(*SCREENS["light"][:2])
    browser.open(f"{server.admin_url}/admin/")
    teach(server, TOPICS[:20])

    browser.until("document.getElementById('namespaces').textContent.includes('gpt-test')")
    told = server.admin.get("/admin/thresholds").json()["chat"]["models"]["gpt-test"]
    story = told["namespaces"][0]["story"].split(":")[0]
    browser.value("document.querySelector('#namespaces [data-key^=gpt-test] button').click()")
    browser.until(f"document.getElementById('story-words').textContent.startsWith({story!r})")
    assert browser.value("document.documentElement.scrollWidth") == SCREENS["light"][0]
    browser.screenshot(screenshots / "page-chat.png")
    assert browser.said == []
