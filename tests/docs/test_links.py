"""Every link and every path in the Markdown pages leads somewhere."""

import re

import pytest
from pages import PAGES, ROOT, anchors, code_spans, links, name_of

PATHS = re.compile(r"(?:cacheproxy|tests|loadtest|deploy|models|docs|\.ci)/[\w./-]*")
"""What in code style is a path of this repository."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_internal_link_leads_to_a_page_and_a_heading(page):
    broken = []
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", sorted({*PAGES} - {ROOT / "CHANGELOG.md"}), ids=name_of)
def test_every_path_in_code_style_exists(page):
    paths = [span for span in code_spans(page) if PATHS.fullmatch(span)]

    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_page_of_the_documentation_is_reached_from_the_readme_or_the_index():
    start = [ROOT / "README.md", ROOT / "docs" / "index.md"]
    reached = {
        (page.parent / link.partition("#")[0]).resolve() for page in start for link in links(page)
    }

    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {name_of(page) for page in pages - reached} <= {"docs/index.md"}
