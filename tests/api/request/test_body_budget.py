"""Bodies never take more than the budget, in all or for one caller, and it is given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from cacheproxy.api.request.body_budget import BodyBudget
from cacheproxy.errors import BadRequest, Unavailable

ALL_BYTES, CALLER_BYTES = 100, 60


def make_budget(freed=lambda _: None) -> tuple[BodyBudget, Counter]:
    shed = Counter("shed", "Refused", ["reason"], registry=CollectorRegistry())
    budget = BodyBudget(all_bytes=ALL_BYTES, caller_bytes=CALLER_BYTES, shed=shed, freed=freed)
    return budget, shed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, CALLER_BYTES), st.booleans())))
def test_the_bytes_taken_stay_within_both_limits(steps):
    budget, shed = make_budget()
    held: list[tuple[str, int]] = []
    refused = 0
    for caller, size, gives_back in steps:
        if gives_back and held:
            budget.give_back(*held.pop())
            continue
        try:
            budget.take(caller, size)
            held.append((caller, size))
        except Unavailable:
            refused += 1
            of_caller = sum(taken for who, taken in held if who == caller)
            fits = sum(taken for _, taken in held) + size <= ALL_BYTES
            assert not (fits and of_caller + size <= CALLER_BYTES)
        assert budget.taken_bytes == sum(taken for _, taken in held) <= ALL_BYTES
        for one in "abc":
            assert sum(taken for who, taken in held if who == one) <= CALLER_BYTES
    assert shed.labels("bodies")._value.get() == refused
    for caller, size in held:
        budget.give_back(caller, size)
    assert budget.taken_bytes == 0


def test_a_body_that_can_never_fit_is_too_large():
    budget, _ = make_budget()

    with pytest.raises(BadRequest) as raised:
        budget.take("a", CALLER_BYTES + 1)
    assert raised.value.status == 413


def test_a_body_that_may_fit_later_is_asked_to_come_again():
    budget, _ = make_budget()
    budget.take("a", CALLER_BYTES)

    with pytest.raises(Unavailable) as raised:
        budget.take("b", CALLER_BYTES)
    assert raised.value.retry_after_s
