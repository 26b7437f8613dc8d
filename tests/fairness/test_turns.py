"""Owners take turns by what they have had; each one's things keep their order."""

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.fairness.turns import Turns


def test_one_thing_waits_for_about_one_of_another_owner_s_hundred():
    turns = Turns[int]()
    for number in range(100):
        turns.put("hostile", number)
    for _ in range(10):
        owner, _ = turns.pop()
        turns.charge(owner, 1.0)
    turns.put("quiet", 0)

    owners = []
    for _ in range(2):
        owners.append(turns.peek().owner)
        turns.charge(turns.pop().owner, 1.0)
    assert "quiet" in owners


def test_one_that_was_away_does_not_catch_up():
    turns = Turns[int]()
    for number in range(100):
        turns.put("busy", number)
        turns.charge(turns.pop().owner, 1.0)
    for number in range(20):
        turns.put("busy", number)
        turns.put("back", number)

    owners = []
    for _ in range(20):
        owners.append(turns.pop().owner)
        turns.charge(owners[-1], 1.0)
    assert 9 <= owners.count("back") <= 11


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.booleans())))
def test_nothing_is_lost_and_each_owner_s_things_keep_their_order(steps):
    turns, put, popped = Turns[int](), {"a": [], "b": [], "c": []}, {"a": [], "b": [], "c": []}
    for number, (owner, cost, pops) in enumerate(steps):
        turns.put(owner, number)
        put[owner].append(number)
        if pops:
            turn = turns.pop()
            popped[turn.owner].append(turn.thing)
            turns.charge(turn.owner, cost)
    while turns:
        turn = turns.pop()
        popped[turn.owner].append(turn.thing)
    assert popped == put
