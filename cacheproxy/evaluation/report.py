"""A study as a page for people and as JSON for machines."""

import html
from itertools import pairwise
from typing import Any

import numpy as np

from cacheproxy.evaluation.page import as_svg, make_page
from cacheproxy.evaluation.replay import SEMANTIC, Replay
from cacheproxy.evaluation.retrieval import LEAST_COSINE, Recall
from cacheproxy.evaluation.study import Study
from cacheproxy.thresholds.bounds import Stratum, upper_limit

_DIFFERENT = "<th>by a text labelled as different"
_NONE_NEAR = f"no two texts were found at a cosine of {LEAST_COSINE:.2f} or more"


def as_json(study: Study) -> dict[str, Any]:
    """Return the study's figures."""
    best, recall = study.hindsight, study.recall or ()
    return {
        "requests": study.requests,
        "lookups": len(study.closed.scores),
        "min_similarity": study.min_similarity,
        "max_error": study.promise.max_error,
        "confidence": study.promise.confidence,
        "policies": [_row(study, found) for found in study.replays],
        "hindsight": _row(study, best) | {"threshold": study.hindsight_threshold} if best else None,
        "recall": [row._asdict() | {"highest": min(1.0, row.highest)} for row in recall],
    }


def _row(study: Study, found: Replay) -> dict[str, Any]:
    exact = study.closed.spared
    limit = upper_limit([Stratum(1, max(found.hits, 1), found.wrong)], study.promise.confidence)
    return {
        "policy": found.policy,
        "hits": found.hits,
        "wrong": found.wrong,
        "error": found.error,
        "error_upper": limit if found.hits else None,
        "different": found.different if study.is_labelled else None,
        "checks": found.checks,
        "first_hit": int(np.argmax(found.outcomes == SEMANTIC)) if found.hits else None,
        "spared": found.spared,
        "spared_beyond_exact": found.spared - exact,
    }


def as_text(study: Study) -> str:
    """Return the table for a terminal."""
    lines = [
        f"{study.requests} requests, {study.closed.spared} exact hits, "
        f"{len(study.closed.scores)} lookups; a hit is wrong if {study.wrong_if}; "
        f"promised: at most {study.promise.max_error:.1%} wrong",
        f"{'policy':22}{'hits':>8}{'wrong':>8}{'wrong|hit':>11}{'checked':>9}{'spared':>9}"
        + f"{'different':>11}" * study.is_labelled,
    ]
    rows = [*study.replays, *([study.hindsight] if study.hindsight else [])]
    for found in rows:
        name = "best in hindsight" if found is study.hindsight else found.policy
        more = found.spared - study.closed.spared
        lines.append(
            f"{name:22}{found.hits:8d}{found.wrong:8d}{found.error:11.2%}{found.checks:9d}{more:9d}"
            + f"{found.different:11d}" * study.is_labelled
        )
    if study.recall:
        lines += [
            "",
            f"{'cosine of the vector served':30}{'pairs':>7}{'of the first ten found':>25}",
        ]
        lines += [f"{_range(row):30}{row.pairs:7d}{row.share:25.0%}" for row in study.recall]
    elif study.recall is not None:
        lines += ["", f"--documents: {_NONE_NEAR}"]
    return "\n".join(lines)


def _range(row: Recall) -> str:
    return f"{row.lowest:.2f} to {row.highest:.2f}" if row.highest <= 1 else f"{row.lowest:.2f} on"


def as_html(study: Study, title: str) -> str:
    """Return the self-contained page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    rows = "".join(_html_row(study, found) for found in study.replays)
    if study.hindsight:
        rows += _html_row(study, study.hindsight, "best static threshold in hindsight")
    figures = "".join(f"<figure>{figure}</figure>" for figure in _figures(study))
    return make_page(
        title,
        f"<p>{study.requests:,} requests, of them "
        f"{study.closed.spared:,} exact hits and {len(study.closed.scores):,} with a neighbour. A "
        f"semantic hit is wrong if {study.wrong_if}; promised are at most "
        f"{study.promise.max_error:.1%} wrong ones, with {study.promise.confidence:.0%} "
        "confidence.</p>"
        "<table><tr><th>policy<th>semantic hits<th>wrong<th>wrong given hit<th>checked"
        f"<th>requests saved beyond exact hits{_DIFFERENT * study.is_labelled}</tr>{rows}</table>"
        f"{_recall(study)}{figures}",
    )


def _html_row(study: Study, found: Replay, name: str | None = None) -> str:
    ours = " class=ours" if found is study.replays[0] else ""
    broken = " class=broken" if found.error > study.promise.max_error else ""
    more = found.spared - study.closed.spared
    return (
        f"<tr{ours}><td>{html.escape(name or found.policy)}<td>{found.hits:,}<td>{found.wrong:,}"
        f"<td{broken}>{found.error:.2%}<td>{found.checks:,}<td>{more:,}"
        + f"<td>{found.different:,}" * study.is_labelled
        + "</tr>"
    )


def _recall(study: Study) -> str:
    if study.recall is None:
        return ""
    heading = "<h2>What a similarity means to a retriever</h2>"
    if not study.recall:
        return f"{heading}<p>{_NONE_NEAR.capitalize()}.</p>"
    rows = "".join(
        f"<tr><td>{_range(row)}<td>{row.pairs:,}<td>{row.share:.0%}</tr>" for row in study.recall
    )
    return (
        f"{heading}<table><tr><th>cosine of the served vector to the true one<th>pairs"
        f"<th>of the first ten documents found</tr>{rows}</table>"
    )


def _figures(study: Study) -> list[str]:
    from matplotlib.figure import Figure

    scores = np.array(study.closed.scores)
    is_right = np.array(study.closed.similarities) >= study.min_similarity
    figures = []

    def draw(title: str, x: str, y: str) -> tuple[Figure, Any]:
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel=x, ylabel=y)
        figures.append(figure)
        return figure, axes

    _, axes = draw("Scores of nearest neighbours", "score", "texts")
    axes.hist(
        [scores[is_right], scores[~is_right]],
        bins=np.linspace(0.5, 1, 51).tolist(),
        stacked=True,
        label=["right", "wrong"],
        color=["#2a7f62", "#c2452d"],
    )
    axes.set_yscale("log")
    axes.legend()

    _, axes = draw("Hits against errors", "wrong given hit", "share of requests that are hits")
    order = np.argsort(-scores)
    hits = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~is_right[order]) / hits
    axes.plot(wrong, hits / study.requests, color="#8a94a3", label="any threshold, first lookups")
    for found in study.replays:
        if found.hits:
            axes.plot(found.error, found.hits / study.requests, "o", label=found.policy)
    axes.axvline(study.promise.max_error, color="#c2452d", linestyle=":")
    axes.set_xlim(0, max(0.1, 4 * study.promise.max_error))
    axes.legend(fontsize=8)

    _, axes = draw("Our threshold over time", "request", "lowest score served")
    changes = [(0, None), *study.replays[0].thresholds, (study.requests, None)]
    for (start, threshold), (end, _) in pairwise(changes):
        if threshold is not None:
            axes.plot([start, end], [threshold, threshold], color="#1f5fa8", linewidth=2)
    axes.set_xlim(0, study.requests)

    _, axes = draw("Wrong given hit, so far", "request", "wrong given hit")
    for found in study.replays:
        total = np.cumsum(found.outcomes == SEMANTIC)
        if total[-1]:
            rate = np.cumsum(found.is_wrong) / np.maximum(total, 1)
            shown = total >= 20
            axes.plot(np.flatnonzero(shown), rate[shown], label=found.policy)
    axes.axhline(study.promise.max_error, color="#c2452d", linestyle=":")
    axes.set_ylim(0, max(0.1, 4 * study.promise.max_error))
    axes.legend(fontsize=8)
    return [as_svg(figure) for figure in figures]
