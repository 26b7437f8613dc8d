"""Probes as the graphs hold them: what rounding leaves of scores, and what is found."""

import numpy as np
import pytest
from unit_probes import random_probes, unit

from cacheproxy.stores.embedded.index.codes import Codes, propose_few
from cacheproxy.stores.embedded.index.nodes import Graph

DIMENSIONS = 32
SPREAD = np.linspace(2.0, 0.5, DIMENSIONS, dtype=np.float32)
PROBES = unit((random_probes(2000, DIMENSIONS) * SPREAD) + 0.15)  # with a mean that is far from 0


def graph_of(codes: Codes, count: int):
    graph = Graph(DIMENSIONS)
    graph.add(np.arange(count, dtype=np.uint64), codes.of(PROBES[:count]))
    return graph


def learnt_from(count: int, codes: Codes | None = None) -> Codes:
    before = codes or Codes()
    return before.learnt(graph_of(before, count))


PLAIN, CENTRED, TURNED = Codes(), learnt_from(600), learnt_from(2000, learnt_from(600))
ALL = pytest.mark.parametrize("codes", [PLAIN, CENTRED, TURNED], ids=["plain", "centred", "turned"])


@ALL
def test_scores_of_codes_differ_little_from_those_of_the_probes(codes):
    scores = np.stack([codes.scores(probe, codes.of(PROBES)) for probe in PROBES[:50]])
    assert np.abs(scores - PROBES[:50] @ PROBES.T).max() < 0.03


@ALL
def test_codes_that_were_saved_are_the_same(codes):
    read = Codes.read(codes.saved, DIMENSIONS)
    assert (read.of(PROBES) == codes.of(PROBES)).all()
    rows = codes.of(PROBES)
    assert (read.scores(PROBES[0], rows) == codes.scores(PROBES[0], rows)).all()


def test_with_enough_probes_the_axes_they_differ_most_along_are_shrunk():
    def inequality(codes: Codes) -> float:
        variances = np.linalg.eigvalsh(np.cov(codes.of(PROBES).astype(float).T))
        return variances[-1] / variances[0]

    assert inequality(CENTRED) > 12
    assert inequality(TURNED) < 8
    assert not CENTRED.is_outgrown(1023, DIMENSIONS)
    assert CENTRED.is_outgrown(1024, DIMENSIONS)
    assert not TURNED.is_outgrown(10**6, DIMENSIONS)


def test_what_a_quick_search_does_not_surely_find_is_searched_for_more_widely():
    probes = random_probes(3200, 64)
    stored, asked = probes[:3000], probes[3000:]  # of which none is near another
    graph, codes = Graph(64), Codes()
    graph.add(np.arange(3000, dtype=np.uint64), codes.of(stored))
    found = propose_few(graph, codes, asked)
    nearest = (asked @ stored.T).argmax(axis=1)
    assert np.mean([one in names for one, (names, _) in zip(nearest, found, strict=True)]) >= 0.99
