import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.fairness.shelves import Terms
from cacheproxy.keys import Namespace
from cacheproxy.records import EmbeddingRecord
from cacheproxy.stores.purges import Purges, Scope
from cacheproxy.tiers.hot import HotTier


class Clocks:
    def __init__(self):
        self.monotonic_s = 100.0
        self.wall_s = 1_000_000.0


def make(max_bytes=1_000_000, purges=None):
    clocks = Clocks()
    tier = HotTier(
        max_bytes,
        purges or Purges(),
        monotonic=lambda: clocks.monotonic_s,
        now=lambda: clocks.wall_s,
    )
    return tier, clocks


def record(name: bytes, ttl_s: float = 60.0, size: int = 16) -> EmbeddingRecord:
    return EmbeddingRecord(
        "0" * 32, name.ljust(32), 1_000_000.0, 1_000_000.0 + ttl_s, 3, b"v" * size
    )


def test_an_entry_is_found_by_its_key_and_by_a_linked_text():
    tier, _ = make()
    entry = tier.put(record(b"k"), 0)
    tier.link_text(b"text", entry.record.key)

    assert tier.get(entry.record.key) is entry
    assert tier.get_by_text(b"text") is entry
    assert tier.get_by_text(b"other") is None


def test_an_entry_is_gone_when_its_time_is_over():
    tier, clocks = make()
    entry = tier.put(record(b"k", ttl_s=60), 0)
    tier.link_text(b"text", entry.record.key)

    clocks.monotonic_s += 59.9
    assert tier.get_by_text(b"text") is entry
    clocks.monotonic_s += 0.2
    assert tier.get_by_text(b"text") is None
    assert tier.get(entry.record.key) is None


@pytest.mark.parametrize("step_s", [-86_400, 86_400])
def test_a_step_of_the_wall_clock_neither_prolongs_nor_shortens_a_life(step_s):
    tier, clocks = make()
    entry = tier.put(record(b"k", ttl_s=60), 0)
    clocks.wall_s += step_s

    assert tier.get(entry.record.key) is entry
    clocks.monotonic_s += 61
    assert tier.get(entry.record.key) is None


def test_a_record_that_has_expired_is_not_kept():
    tier, clocks = make()
    clocks.wall_s += 61

    assert tier.put(record(b"k", ttl_s=60), 0) is None


def test_the_entry_used_longest_ago_makes_room():
    tier, _ = make(max_bytes=3_000)
    old, used, new = record(b"old"), record(b"used"), record(b"new")
    tier.put(used, 0)
    tier.put(old, 0)
    tier.put(record(b"third"), 0)
    tier.get(used.key)

    tier.put(new, 0)

    assert tier.get(used.key) is not None
    assert tier.get(new.key) is not None
    assert tier.get(old.key) is None


def test_rendered_parts_and_texts_count_towards_the_bound():
    tier, _ = make(max_bytes=10_000)
    first = tier.put(record(b"first"), 0)
    second = tier.put(record(b"second"), 0)

    second.remember("float", b"x" * 9_000)

    assert tier.get(first.record.key) is None
    assert tier.get(second.record.key) is second


def test_nothing_is_kept_when_the_tier_is_off():
    tier, _ = make(max_bytes=0)

    assert tier.put(record(b"k"), 0) is None
    assert tier.get(record(b"k").key) is None


def test_replacing_an_entry_forgets_what_was_rendered_from_the_old_one():
    tier, _ = make()
    old = tier.put(record(b"k"), 0)
    tier.link_text(b"text", old.record.key)
    old.remember("float", b"[1]")

    new = tier.put(record(b"k"), 0)

    assert tier.get(old.record.key) is new
    assert new.rendered == {}
    assert tier.get_by_text(b"text") is None
    old.remember("base64", b"late")
    assert new.rendered == {}


names = st.integers(0, 12).map(lambda i: b"k%d" % i)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), names, st.integers(0, 4_000)),
            st.tuples(st.just("get"), names, st.just(0)),
            st.tuples(st.just("link"), names, st.integers(0, 40)),
            st.tuples(st.just("remember"), names, st.integers(0, 4_000)),
            st.tuples(st.just("wait"), names, st.integers(0, 30)),
        ),
        max_size=60,
    )
)
def test_the_accounted_size_is_the_entries_own_and_never_above_the_bound(steps):
    tier, clocks = make(max_bytes=12_000)
    for step, name, number in steps:
        key = name.ljust(32)
        if step == "put":
            tier.put(record(name, size=number), 0)
        elif step == "get":
            tier.get(key)
        elif step == "link":
            tier.link_text(b"t%d" % number, key)
        elif step == "remember" and (entry := tier.get(key)):
            entry.remember("float", b"x" * number)
        elif step == "wait":
            clocks.monotonic_s += number
        assert tier.size_bytes == sum(e.size_bytes for e in tier._entries.values()) <= 12_000
        linked = {text for e in tier._entries.values() for text in e.text_keys}
        assert linked == set(tier._keys_by_text)


def test_an_entry_that_is_purged_is_gone_and_its_bytes_with_it():
    purges = Purges()
    tier, _ = make(purges=purges)
    entry = tier.put(record(b"k"), purges.moment)
    tier.link_text(b"text", entry.record.key)
    purges.purged(Scope("0" * 32), 1)

    assert tier.get_by_text(b"text") is None
    assert tier.size_bytes == 0


def test_a_record_read_before_a_purge_is_not_kept_and_replaces_no_newer_one():
    purges = Purges()
    tier, _ = make(purges=purges)
    before = purges.moment
    purges.purged(Scope("0" * 32), 1)
    newer = tier.put(record(b"k"), purges.moment)

    assert tier.put(record(b"k"), before) is None
    assert tier.get(newer.record.key) is newer


def test_entries_of_other_namespaces_outlive_a_purge():
    purges = Purges()
    tier, _ = make(purges=purges)
    entry = tier.put(record(b"k"), purges.moment)
    purges.purged(Scope("1" * 32), 1)

    assert tier.get(entry.record.key) is entry


def test_what_one_tenant_puts_evicts_nothing_of_another_that_holds_less_than_its_half():
    tier, _ = make(max_bytes=20_000)

    def put(tenant: str, number: int) -> bytes:
        namespace_id = Namespace(tenant, f"n{number}").id
        key = f"{tenant}{number}".encode().ljust(32)
        tier.put(EmbeddingRecord(namespace_id, key, 1_000_000.0, 1_000_060.0, 3, b"v" * 16), 0)
        return key

    kept = [put("quiet", number) for number in range(8)]
    for number in range(100):
        put("hostile", number)

    assert all(tier.get(key) for key in kept)
    assert tier.size_bytes <= 20_000


def test_a_tenant_s_own_bound_holds_while_there_is_room():
    terms = Terms(most=3_000)
    tier = HotTier(1_000_000, Purges(), terms=lambda _: terms, now=lambda: 1_000_000.0)
    for number in range(50):
        tier.put(record(b"%d" % number), 0)

    assert 0 < tier.size_bytes <= 3_000
