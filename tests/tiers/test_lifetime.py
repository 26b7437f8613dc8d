from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.tiers.lifetime import Lifetimes

fractions = st.floats(0, 1, exclude_max=True)


def make(*, jitter=0.1, chance=lambda: 0.5) -> Lifetimes:
    return Lifetimes(1_000, by_namespace_id={"short": 100}, jitter=jitter, chance=chance)


def test_a_namespace_may_have_a_life_of_its_own():
    lifetimes = make()

    assert lifetimes.choose("other", None) == 950
    assert lifetimes.choose("short", None) == 95


def test_what_the_request_asks_for_is_taken_at_its_word():
    assert make().choose("short", 60.0) == 60


@given(jitter=fractions, chance=fractions)
def test_no_life_is_longer_than_set_or_shorter_by_more_than_the_jitter(jitter, chance):
    life_s = make(jitter=jitter, chance=lambda: chance).choose("other", None)

    assert 1_000 * (1 - jitter) <= life_s <= 1_000


def test_each_entry_has_a_chance_of_its_own():
    lifetimes = Lifetimes(1_000, by_namespace_id={}, jitter=0.1)

    assert len({lifetimes.choose("a", None) for _ in range(100)}) == 100
