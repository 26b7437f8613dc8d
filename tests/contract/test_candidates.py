"""The contract of `candidates`: the entries nearest to one probe, best first, on every store."""

import numpy as np
import pytest
from opened_stores import PARTITION, key, probes


def crowd(centre, count):
    """Unit vectors at growing distances from a centre."""
    away = probes(count, seed=1)
    rows = np.stack([centre + 0.05 * (n + 1) * row for n, row in enumerate(away)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


async def test_candidates_are_the_nearest_entries_best_first(store, entry, score_error):
    (centre,) = probes(1)
    rows = crowd(centre, 12)
    await store.put_many([entry(n, str(n).encode(), probe=row) for n, row in enumerate(rows)])

    found = await store.candidates(PARTITION, centre, 4)

    scores = rows @ centre
    expected = np.argsort(-scores)[:4]
    assert [one.key for one in found] == [key(int(n)) for n in expected]
    assert [one.score for one in found] == pytest.approx(scores[expected].tolist(), abs=score_error)
    assert [one.record for one in found] == [str(n).encode() for n in expected]


async def test_there_are_no_more_candidates_than_entries(store, entry):
    (centre,) = probes(1)
    assert await store.candidates(PARTITION, centre, 4) == []
    rows = crowd(centre, 2)
    await store.put_many([entry(n, probe=row) for n, row in enumerate(rows)])

    assert len(await store.candidates(PARTITION, centre, 4)) == 2


async def test_expired_entries_are_no_candidates(store, clock, entry):
    (centre,) = probes(1)
    rows = crowd(centre, 8)
    await store.put_many([entry(n, ttl_s=1, probe=row) for n, row in enumerate(rows[:6])])
    await store.put_many([entry(n + 6, ttl_s=60, probe=row) for n, row in enumerate(rows[6:])])
    await clock.let_pass(1.1)

    found = await store.candidates(PARTITION, centre, 4)

    assert {one.key for one in found} <= {key(6), key(7)}
    assert found
