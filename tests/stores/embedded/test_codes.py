"""Probes as the graphs hold them: what rounding leaves of a score, with a mean or without."""

import numpy as np
from unit_probes import random_probes, unit

from cacheproxy.stores.embedded.codes import Codes

PROBES = unit(random_probes(1000, 256) + 0.06)  # their mean has a length of 0.7


def scores(codes: Codes) -> np.ndarray:
    return np.stack([codes.scores(probe, codes.of(PROBES)) for probe in PROBES[:50]])


def test_scores_of_codes_differ_little_from_those_of_the_probes():
    true = PROBES[:50] @ PROBES.T
    assert np.abs(scores(Codes()) - true).max() < 0.006

    centred = Codes.learnt(Codes().of(PROBES[:512]))
    assert np.linalg.norm(PROBES.mean(axis=0)) > 0.6
    assert np.linalg.norm(centred.of(PROBES).astype(float).mean(axis=0)) < 20
    difference = scores(centred) - true
    assert np.ptp(difference, axis=1).max() < 0.012  # all of a probe's are off by the same number


def test_codes_that_were_saved_are_the_same():
    centred = Codes.learnt(Codes().of(PROBES))
    assert (Codes.read(centred.saved).of(PROBES) == centred.of(PROBES)).all()
    assert Codes().saved is None
    assert (Codes.read(None).of(PROBES) == Codes().of(PROBES)).all()
