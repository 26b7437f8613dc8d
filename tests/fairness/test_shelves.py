"""Owners divide a bound: who holds the most loses first, and who holds little loses nothing."""

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.fairness.shelves import FairMap, Terms


def make(most: int = 10, **more) -> tuple[FairMap[str, int], list[str]]:
    forgotten: list[str] = []
    return FairMap(most, lambda key: key[0], forgotten=forgotten.append, **more), forgotten


def test_an_owner_alone_may_use_all_and_loses_what_it_used_longest_ago():
    shelf, forgotten = make(3)
    for key in ("a1", "a2", "a3"):
        shelf.put(key, 1)
    assert shelf.get("a1") == 1
    shelf.put("a4", 1)

    assert forgotten == ["a2"]
    assert [key for key, _ in shelf.items()] == ["a4", "a1", "a3"]


def test_one_that_makes_keys_without_end_pushes_out_its_own_alone():
    shelf, forgotten = make(10)
    for number in range(3):
        shelf.put(f"quiet{number}", number)
    for number in range(1_000):
        shelf.put(f"hostile{number}", number)

    assert len(shelf) == 10
    assert all(key.startswith("hostile") for key in forgotten)
    assert [shelf.get(f"quiet{number}") for number in range(3)] == [0, 1, 2]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=200))
def test_the_bound_holds_and_nobody_below_an_equal_part_loses_anything(steps):
    shelf, forgotten = make(9)
    held: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}
    for owner, number in steps:
        key = f"{owner}{number}"
        shelf.put(key, number)
        held[owner].add(key)
        for gone in forgotten:
            assert len(held[gone[0]]) > 3
            held[gone[0]].remove(gone)
        forgotten.clear()
        assert len(shelf) == sum(map(len, held.values())) <= 9
        assert {key for key, _ in shelf.items()} == set().union(*held.values())


def test_shares_weigh_and_a_bound_of_its_own_holds_whatever_is_free():
    terms = {"a": Terms(share=2), "b": Terms(), "c": Terms(most=1)}
    shelf, _ = make(9, terms=terms.__getitem__)
    shelf.put("c1", 1)
    shelf.put("c2", 1)
    for number in range(50):
        shelf.put(f"a{number}", 1)
        shelf.put(f"b{number}", 1)

    by_owner = [key[0] for key, _ in shelf.items()]
    assert by_owner.count("c") == 1
    assert 5 <= by_owner.count("a") <= 6
