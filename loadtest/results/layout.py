"""The layout of pages: one file with tables, and plots that can be zoomed, without a network.

uPlot draws the plots in the browser (51 kB, in `page/uplot/` as its authors publish it): a page of
ten phases has some 50, which as images could not be zoomed and would take megabytes.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

_FOLDER = Path(__file__).parent / "page"


class Line(msgspec.Struct, frozen=True):
    """One line of a plot.

    Attributes:
        label: for the legend.
        colour: CSS.
        values: one for each x; None where there is none.
        dashed: whether it is dashed.
        points: whether its points are marked.
        alone: whether there are only its points, as rings.
    """

    label: str
    colour: str
    values: Sequence[float | None]
    dashed: bool = False
    points: bool = False
    alone: bool = False


class Plot(msgspec.Struct, frozen=True):
    """One plot; `group` names the plots that share its vertical scale."""

    title: str
    x_label: str
    x: Sequence[float]
    lines: list[Line]
    group: str
    log: bool = False


@dataclass
class Page:
    """A page to which parts are added in their order."""

    title: str
    about: Sequence[str]
    _parts: list[str] = field(default_factory=list)
    _plots: list[Plot] = field(default_factory=list)
    _tables: int = 0

    def add(self, *parts: str) -> None:
        """Add HTML."""
        self._parts += parts

    def tiles(self, tiles: Iterable[tuple[str, str, str, str]]) -> None:
        """Add figures in large type: name, figure, note, and `good`, `warn`, `bad` or ""."""
        self.add("<div class=tiles>")
        for name, figure, note, state in tiles:
            name, figure, note = map(html.escape, (name, figure, note))
            self.add(
                f'<div class="tile {state}"><h2>{name}</h2><b>{figure}</b><span>{note}</span></div>'
            )
        self.add("</div>")

    def plot(self, plot: Plot, *, large: bool = False) -> None:
        """Add a plot."""
        title = html.escape(plot.title)
        size = " data-large" if large else ""
        self.add(
            f'<figure data-plot={len(self._plots)}{size} aria-label="{title}">'
            f"<figcaption><button>{title}</button></figcaption></figure>"
        )
        self._plots.append(plot)

    def key(self, colours: Iterable[tuple[str, str]], note: str) -> None:
        """Add what colours mean, and a note."""
        items = "".join(
            f'<li><i style="background:{colour}"></i>{html.escape(name)}'
            for name, colour in colours
        )
        self.add(f"<ul class=key>{items}<li>{html.escape(note)}</ul>")

    def table(
        self, heads: Sequence[str], rows: Iterable[Sequence[str]], broken: Sequence[int] = ()
    ) -> None:
        """Add a table that can be copied; the rows with the indices `broken` are marked."""
        self._tables += 1
        name = f"table{self._tables}"
        self.add(f"<div class=scroll><table class=data id={name}><tr>{_cells('th', heads)}</tr>")
        for index, row in enumerate(rows):
            mark = " class=broken" if index in broken else ""
            self.add(f"<tr{mark}>{_cells('td', row)}</tr>")
        self.add(f"</table></div><button data-copy={name}>Copy table</button>")

    def items(self, lines: Sequence[str], state: str = "") -> None:
        """Add a list of lines."""
        if lines:
            items = "".join(f"<li>{html.escape(line)}" for line in lines)
            self.add(f'<ul class="list {state}">{items}</ul>')

    def render(self) -> str:
        """Return the page."""
        # A "<" in the data would end the script that holds it.
        data = msgspec.json.encode(self._plots).decode().replace("<", "\\u003c")
        parts = {
            "title": html.escape(self.title),
            "about": "".join(f"<p>{html.escape(line)}</p>" for line in self.about),
            "content": "\n".join(self._parts),
            "uplot_css": _read("uplot/uPlot.min.css"),
            "plots": data,
            "uplot_js": _read("uplot/uPlot.iife.min.js"),
            "plots_js": _read("plots.js"),
        }
        head, *pieces = _read("page.html").split("{{")
        filled = (piece.split("}}", 1) for piece in pieces)
        return head + "".join(parts[name] + rest for name, rest in filled)


def _cells(tag: str, cells: Iterable[str]) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
