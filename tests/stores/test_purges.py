"""What a process makes of what it has heard of purges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cacheproxy.stores.purges as module
from cacheproxy.stores.purges import Purges, Scope

OURS, THEIRS = "0" * 32, "1" * 32
KEY, OTHER = b"k" * 32, b"o" * 32


def test_before_anything_is_heard_everything_stands():
    purges = Purges()
    assert purges.is_untouched(OURS, KEY, purges.moment)
    assert purges.generation == 0


def test_a_purge_by_key_touches_what_was_begun_before_it_under_that_key():
    purges = Purges()
    before = purges.moment
    purges.purged(Scope(OURS, key=KEY), 7)

    assert not purges.is_untouched(OURS, KEY, before)
    assert purges.is_untouched(OURS, OTHER, before)
    assert purges.is_untouched(OURS, KEY, purges.moment)
    assert purges.generation == 7


@pytest.mark.parametrize("scope", [Scope(OURS), Scope(OURS, tag="docs")])
def test_a_purge_by_tag_or_of_all_touches_the_whole_namespace_and_no_other(scope):
    purges = Purges()
    before = purges.moment
    purges.purged(scope, 7)

    assert not purges.is_untouched(OURS, KEY, before)
    assert purges.is_untouched(THEIRS, KEY, before)
    assert purges.is_untouched(OURS, KEY, purges.moment)


def test_hearing_of_a_purge_again_or_late_changes_nothing():
    purges = Purges()
    purges.purged(Scope(OURS), 7)
    after = purges.moment
    purges.purged(Scope(OURS), 7)
    purges.purged(Scope(OURS, tag="docs"), 6)

    assert purges.moment == after
    assert purges.generation == 7


def test_a_purge_heard_after_a_newer_one_of_another_namespace_counts():
    purges = Purges()
    purges.purged(Scope(THEIRS), 8)
    before = purges.moment
    purges.purged(Scope(OURS), 7)

    assert not purges.is_untouched(OURS, KEY, before)
    assert purges.generation == 8


def test_replaced_keys_touch_only_themselves_and_are_no_purge():
    purges = Purges()
    before = purges.moment
    purges.replaced([KEY])

    assert not purges.is_untouched(OURS, KEY, before)
    assert purges.is_untouched(OURS, OTHER, before)
    assert purges.generation == 0


def test_a_key_replaced_after_its_purge_does_not_let_the_purge_be_heard_again():
    purges = Purges()
    purges.purged(Scope(OURS, key=KEY), 7)
    purges.replaced([KEY])
    after = purges.moment
    purges.purged(Scope(OURS, key=KEY), 7)

    assert purges.moment == after


def test_after_something_was_missed_nothing_from_before_stands():
    purges = Purges()
    before = purges.moment
    purges.missed(9)

    assert not purges.is_untouched(OURS, KEY, before)
    assert purges.is_untouched(OURS, KEY, purges.moment)
    assert purges.generation == 9


def test_a_scope_is_by_tag_or_by_key():
    with pytest.raises(ValueError, match="by tag or by key"):
        Scope(OURS, tag="docs", key=KEY)


NEWS = st.lists(
    st.one_of(
        st.tuples(st.just("namespace"), st.integers(0, 4)),
        st.tuples(st.just("key"), st.integers(0, 40)),
        st.tuples(st.just("replaced"), st.integers(0, 40)),
        st.tuples(st.just("begin"), st.integers(0, 40)),
    ),
    max_size=80,
)


@given(NEWS)
def test_nothing_that_was_touched_ever_stands_however_little_is_remembered(steps):
    purges = Purges()
    begun = []  # (namespace, key, moment, whether touched since)
    for number, (step, which) in enumerate(steps):
        namespace, key = str(which % 5), b"%d" % which
        if step == "begin":
            begun.append([namespace, key, purges.moment, False])
            continue
        if step == "namespace":
            purges.purged(Scope(str(which)), number + 1)
        elif step == "key":
            purges.purged(Scope(namespace, key=key), number + 1)
        else:
            purges.replaced([key])
        for work in begun:
            work[3] |= work[0] == str(which) if step == "namespace" else work[1] == key
    assert len(purges._heard) <= module._MOST_SUBJECTS
    for namespace, key, moment, is_touched in begun:
        stands = purges.is_untouched(namespace, key, moment)
        assert not (stands and is_touched)
        if len(steps) < module._MOST_SUBJECTS:
            assert stands or is_touched


def test_the_promise_holds_with_a_small_memory(monkeypatch):
    monkeypatch.setattr(module, "_MOST_SUBJECTS", 3)
    test_nothing_that_was_touched_ever_stands_however_little_is_remembered()
