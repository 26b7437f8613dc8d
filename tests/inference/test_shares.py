"""Models that have work get equal shares of tokens, and what was idle is next but earns nothing."""

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.inference.shares import Shares

SIZES = st.lists(st.integers(1, 256), min_size=1, max_size=8)


@given(st.lists(SIZES, min_size=2, max_size=4), st.integers(10, 300))
def test_models_that_always_have_work_differ_by_their_two_largest_groups_at_most(sizes, turns):
    shares, served = Shares(), [0] * len(sizes)
    taken = [0] * len(sizes)

    for _ in range(turns):
        model = shares.next(range(len(sizes)))
        tokens = sizes[model][taken[model] % len(sizes[model])]
        shares.charge(model, tokens)
        served[model] += tokens
        taken[model] += 1

    # Goyal, Vin and Cheng's bound for start-time fair queueing with equal weights.
    largest = sorted(map(max, sizes))
    assert max(served) - min(served) <= largest[-1] + largest[-2]


@given(st.integers(1, 50), st.integers(1, 256))
def test_a_model_that_was_idle_is_next_once_and_earns_nothing_by_it(turns, tokens):
    shares = Shares()
    for _ in range(turns):
        shares.charge(shares.next([0]), tokens)

    order = []
    for _ in range(6):
        order.append(shares.next([0, 1]))
        shares.charge(order[-1], tokens)

    assert order[0] == 1
    assert sorted(order) == [0, 0, 0, 1, 1, 1]
