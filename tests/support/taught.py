"""Labels of pairs, from which a score can be learned."""

import numpy as np

from cacheproxy.thresholds.judged.evidence import FEATURES, LABEL


def labels(seed, count=400):
    """Return labels of which the third feature tells what is wrong."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, LABEL)
    rows["features"] = rng.random((count, FEATURES))
    rows["half"] = rng.integers(0, 2, count)
    rows["is_rejected"] = rows["features"][:, 2] + 0.2 * rng.standard_normal(count) > 0.6
    rows["weight"] = 1
    return rows
