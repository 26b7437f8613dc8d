import base64
import json
import time

import numpy as np
import pytest

from cacheproxy.api.presentation import cache_headers, outcome_of, quantize, render_vector
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import Control, ItemsResult, Served
from cacheproxy.stores.purges import Purges
from cacheproxy.tiers.hot import HotTier


@pytest.fixture
def vector():
    values = np.random.default_rng(1).normal(size=384).astype(np.float32)
    return values / np.linalg.norm(values)


def served(vector=None, outcome="miss", age_s=0.0, ttl_s=100.0, **more) -> Served:
    values = np.ones(4, np.float32) if vector is None else vector
    now = time.time()
    record = EmbeddingRecord(
        "0" * 32, b"k" * 32, now - age_s, now + ttl_s, 5, values.astype("<f4").tobytes()
    )
    return Served(record, outcome, **more)


def headers_of(*texts: Served, control: Control | None = None) -> dict[str, str]:
    answer = ItemsResult(list(texts), {"exact": 0.0015})
    pairs = cache_headers(answer, outcome_of(answer), control or Control(), 0.002)
    return {name.decode(): value.decode() for name, value in pairs}


def test_floats_come_back_as_the_same_float32(vector):
    rendered = json.loads(render_vector(served(vector), "float", None))

    assert np.array_equal(np.array(rendered, np.float32), vector)


def test_base64_is_little_endian_float32(vector):
    rendered = json.loads(render_vector(served(vector), "base64", None))

    assert np.array_equal(np.frombuffer(base64.b64decode(rendered), "<f4"), vector)


@pytest.mark.parametrize("dimensions", [1, 100, 384])
def test_a_cut_vector_is_a_prefix_of_unit_length(vector, dimensions):
    cut = np.array(json.loads(render_vector(served(vector), "float", dimensions)))

    assert cut.shape == (dimensions,)
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)
    assert np.dot(cut, vector[:dimensions]) / np.linalg.norm(vector[:dimensions]) == pytest.approx(
        1
    )


def test_int8_keeps_the_cosine_and_its_largest_component_is_127(vector):
    integers = quantize(vector, "int8")

    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() == 127
    cosine = integers @ vector.astype(float) / np.linalg.norm(integers.astype(float))
    assert cosine > 0.9999
    assert np.array_equal(quantize(vector, "uint8"), (integers.astype(int) + 128))


def test_bits_are_signs_with_the_first_dimension_highest():
    vector = np.array([0.5, -0.1, 0, 0.2, -0.3, -0.4, -0.5, 0.1, 0.9], np.float32)

    assert quantize(vector, "ubinary").tolist() == [0b10010001, 0b10000000]
    assert quantize(vector, "binary").tolist() == [0b10010001 - 128, 0b10000000 - 128]
    assert quantize(vector, "binary").dtype == np.int8


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_vector_of_zeros_stays_one(dtype):
    assert set(quantize(np.zeros(8, np.float32), dtype)) == {0 if dtype == "int8" else 128}


def test_only_a_vector_that_is_asked_for_again_keeps_its_rendering(vector):
    entry = HotTier(10_000, Purges()).put(served(vector).record, 0)

    render_vector(served(vector, "miss", hot_entry=entry), "float", None)
    assert entry.rendered == {}
    first = render_vector(served(vector, "hot", hot_entry=entry), "float", None)
    assert entry.rendered == {"float": first}
    render_vector(served(vector, "hot", hot_entry=entry), "base64", 3)
    assert set(entry.rendered) == {"float"}


def test_a_hit_tells_its_tier_and_age():
    headers = headers_of(served(outcome="exact", age_s=7.5, ttl_s=100.5))

    assert headers["cache-status"] == "cacheproxy; hit; ttl=100; detail=exact"
    assert headers["age"] == "7"
    assert headers["server-timing"] == "exact;dur=1.500, total;dur=2.000"


def test_a_miss_has_no_age_and_says_whether_it_was_stored():
    stored = headers_of(served(ttl_s=100.5, is_stored=True))
    refused = headers_of(served(), control=Control(no_store=True))
    dropped = headers_of(served(is_stored=True), served(is_stored=False))

    assert stored["cache-status"] == "cacheproxy; fwd=miss; ttl=100; stored"
    assert dropped["cache-status"] == "cacheproxy; fwd=miss"
    assert refused["cache-status"] == "cacheproxy; fwd=request"
    assert "age" not in stored


def test_a_mixed_batch_counts_its_tiers():
    headers = headers_of(
        *[served(outcome="hot")] * 3,
        served(outcome="semantic", score=0.9731),
        *[served(outcome="miss", ttl_s=50.5, is_stored=True)] * 2,
    )

    expected = 'cacheproxy; fwd=miss; ttl=50; stored; detail="hot=3,semantic=1,miss=2"'
    assert headers["cache-status"] == expected
    assert headers["x-cacheproxy-similarity"] == "3=0.9731"
    assert "age" not in headers


def test_a_mixed_batch_of_hits_is_a_hit():
    headers = headers_of(served(outcome="hot"), served(outcome="exact", age_s=3.5))

    assert headers["cache-status"] == 'cacheproxy; hit; ttl=99; detail="hot=1,exact=1"'
    assert headers["age"] == "3"


def test_a_semantic_hit_tells_its_score():
    assert (
        headers_of(served(outcome="semantic", score=0.98765))["x-cacheproxy-similarity"] == "0.9877"
    )


def test_a_follower_of_another_requests_inference_is_marked_as_collapsed():
    assert headers_of(served(collapsed=True))["cache-status"].endswith("; collapsed")


def test_the_outcome_of_a_batch_is_its_tier_or_mixed():
    assert outcome_of(ItemsResult([served(outcome="hot")] * 2, {})) == "hot"
    assert outcome_of(ItemsResult([served(outcome="hot"), served()], {})) == "mixed"
