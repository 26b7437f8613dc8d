"""The report and the comparison in a real browser: drawn, on one screen, zoomed, copied."""

import pytest
from browser import Browser
from load_results import phase_of, result_of

from loadtest.results.comparison import as_comparison
from loadtest.results.report import as_html

TEN = [(f"{per_s}/s", per_s, per_s / 10) for per_s in range(10, 110, 10)]


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    a, b = (result_of(*(phase_of(n, r, k * ms) for n, r, ms in TEN)) for k in (1, 2))
    for name, page in (("report", as_html(a)), ("comparison", as_comparison(a, b))):
        (folder / f"{name}.html").write_text(page)
    return {path.stem: path.as_uri() for path in folder.iterdir()}


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_every_plot_is_drawn_and_nothing_is_wider_than_the_screen(browser, urls, name, width):
    browser.look(width, 800)
    browser.open(urls[name])

    figures = "document.querySelectorAll('figure[data-plot]').length"
    browser.until(f"document.querySelectorAll('figure canvas').length === {figures}")
    assert browser.value(figures) > 30
    assert browser.value("document.documentElement.scrollWidth") <= width


def test_ten_phases_are_on_the_first_screen(browser, urls):
    browser.look(1280, 800)
    browser.open(urls["report"])

    assert browser.value("document.querySelectorAll('#table1 tr').length") == 11
    for part in ("#table1", "figure[data-large]", ".tiles"):
        assert (
            browser.value(f"document.querySelector('{part}').getBoundingClientRect().bottom") < 800
        )


def test_dragging_zooms_and_a_double_click_goes_back(browser, urls):
    browser.look(1280, 800)
    browser.open(urls["report"])
    # The first plot's own labels are pixels: the legend tells where on the scale the mouse is.
    browser.until("document.querySelector('figure .u-over')")
    box = browser.value(
        "(({left, top, width, height}) => [left, top, width, height])"
        "(document.querySelector('figure .u-over').getBoundingClientRect())"
    )
    left, top, width, height = box
    y = top + height / 2

    def mouse(kind, share, **more):
        where = {"type": kind, "x": left + share * width, "y": y, "button": "left", **more}
        browser.call("Input.dispatchMouseEvent", where)

    def rate_at_left() -> float:
        mouse("mouseMoved", 0.01, button="none")
        said = "document.querySelector('figure .u-legend .u-value').textContent"
        browser.until(f"/[0-9]/.test({said})")
        return float(browser.value(said))

    assert rate_at_left() == 10
    mouse("mousePressed", 0.5, clickCount=1)
    mouse("mouseMoved", 0.6)
    mouse("mouseMoved", 0.9)
    mouse("mouseReleased", 0.9, clickCount=1)
    assert rate_at_left() > 40
    for count in (1, 2):
        mouse("mousePressed", 0.5, clickCount=count)
        mouse("mouseReleased", 0.5, clickCount=count)
    assert rate_at_left() == 10


def test_a_title_opens_its_plot_large_and_a_table_can_be_copied(browser, urls):
    browser.look(1280, 800)
    browser.open(urls["report"])

    browser.value("document.querySelector('.row figure button').click()")

    browser.until("document.querySelector('dialog[open] canvas')")
    assert browser.value("document.querySelector('dialog h2').textContent").startswith("questions:")
    browser.value("document.querySelector('dialog').close()")
    browser.value("document.querySelector('[data-copy=table1]').click()")
    selected = browser.value("getSelection().toString()")
    assert selected.splitlines()[0].startswith("phase\toffered/s")
    assert "100/s\t100.0" in selected
