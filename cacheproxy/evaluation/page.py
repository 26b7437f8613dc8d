"""The layout of reports: one self-contained HTML file with tables, and plots as SVG."""

import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2430;background:#fff}
table{border-collapse:collapse;width:100%}td,th{padding:.35rem .6rem;text-align:right;
border-bottom:1px solid #d9dee6}td:first-child,th:first-child{text-align:left}
tr.ours{font-weight:600}.broken{color:#b3261e}svg{max-width:100%;height:auto}
@media(prefers-color-scheme:dark){body{color:#e3e7ee;background:#14181f}
td,th{border-color:#39414d}.broken{color:#ff897d}svg{background:#fff}}
"""


def make_page(title: str, content: str) -> str:
    """Return the page; `title` is text, `content` HTML."""
    shown = html.escape(title)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{shown}</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{shown}</h1>{content}</html>\n"
    )


def as_svg(figure: "Figure") -> str:
    """Return a plot as an SVG element."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]
