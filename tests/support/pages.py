"""The repository's Markdown pages: their headings, links and blocks of code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_EXAMPLE = re.compile(
    r"^<!-- run -->\n```(?P<language>sh|python)\n(?P<source>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """A block that readers copy, and the output that the page shows for it, if any."""

    page: str
    line: int
    language: str
    source: str
    output: str | None


def name_of(page: Path) -> str:
    """Return a page's path inside the repository."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts and MkDocs make them."""
    return {_slug(heading) for heading in _HEADING.findall(_without_blocks(page))}


def links(page: Path) -> list[str]:
    """Return the targets of a page's links outside of code."""
    return _LINK.findall(_CODE.sub("", _without_blocks(page)))


def code_spans(page: Path) -> list[str]:
    """Return the texts in code style, blocks left out."""
    return _CODE.findall(_without_blocks(page))


def sources(page: Path, language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return [source for name, source in _FENCE.findall(page.read_text()) if name == language]


def examples(page: Path) -> Iterator[Example]:
    """Yield a page's examples that are marked to be run, in their order."""
    text = page.read_text()
    for found in _EXAMPLE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Example(name_of(page), line, found["language"], found["source"], found["output"])


def _without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip())
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
