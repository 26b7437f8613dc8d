"""What the proxy spends stays within its share of what clients' requests cost."""

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.thresholds.judged.allowance import Allowance, tokens_cost


@given(
    costs=st.lists(st.floats(1, 2_000), min_size=1, max_size=200),
    price=st.floats(1, 800),
    is_open=st.booleans(),
)
def test_no_more_is_spent_than_the_share_and_one_request(costs, price, is_open):
    allowance = Allowance(0.1, 0.03)
    for cost in costs:
        allowance.earn(cost, is_open=is_open)
        while allowance.has_room:
            allowance.spend("label", price)
        assert allowance.spent <= (0.03 if is_open else 0.1) * allowance.clients_cost + price


def test_a_share_of_0_spends_nothing():
    allowance = Allowance(0, 0)
    allowance.earn(1_000, is_open=False)

    assert not allowance.has_room
    assert allowance.fullness == 0


def test_what_is_saved_up_has_a_bound():
    allowance = Allowance(0.1, 0.03)
    for _ in range(10_000):
        allowance.earn(100, is_open=False)
    while allowance.has_room:
        allowance.spend("label", 10, tokens=7)

    assert allowance.requests["label"] == 200
    assert allowance.tokens["label"] == 1_400


def test_an_output_token_counts_as_four_input_tokens():
    assert tokens_cost(10, 5) == 30
