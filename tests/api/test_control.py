import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.api.control import parse_control
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import Control


def test_a_request_without_our_headers_takes_the_defaults():
    assert parse_control({b"accept": b"*/*"}) == Control()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"no-cache", Control(no_cache=True)),
        (b"No-Store , max-age=5", Control(no_store=True, max_age_s=5)),
        (b"only-if-cached", Control(only_if_cached=True)),
        (b'max-age="10"', Control(max_age_s=10)),
        (b"max-stale=3, immutable, ,", Control()),
    ],
)
def test_cache_control_directives_are_honoured_and_unknown_ones_ignored(value, expected):
    assert parse_control({b"cache-control": value}) == expected


def test_our_own_headers_are_honoured():
    control = parse_control(
        {
            b"x-cacheproxy-semantic": b"off",
            b"x-cacheproxy-min-similarity": b"0.97",
            b"x-cacheproxy-ttl": b"60",
            b"x-cacheproxy-tags": b"docs, release:1.2 ,docs",
        }
    )

    assert control == Control(
        semantic=False, min_similarity=0.97, ttl_s=60, tags=("docs", "release:1.2")
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"cache-control", b"max-age=soon"),
        (b"cache-control", b"max-age=-1"),
        (b"x-cacheproxy-semantic", b"maybe"),
        (b"x-cacheproxy-semantic", b""),
        (b"x-cacheproxy-min-similarity", b"1.5"),
        (b"x-cacheproxy-min-similarity", b"nan"),
        (b"x-cacheproxy-min-similarity", b""),
        (b"x-cacheproxy-ttl", b"0"),
        (b"x-cacheproxy-ttl", b"inf"),
        (b"x-cacheproxy-tags", b"a b"),
        (b"x-cacheproxy-tags", b",".join(b"t%d" % i for i in range(17))),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused(name, value):
    with pytest.raises(BadRequest):
        parse_control({name: value})


@given(
    st.sampled_from(
        [
            *(b"cache-control", b"x-cacheproxy-semantic", b"x-cacheproxy-min-similarity"),
            *(b"x-cacheproxy-ttl", b"x-cacheproxy-tags"),
        ]
    ),
    st.binary(max_size=60),
)
def test_any_bytes_are_either_understood_or_refused(name, value):
    with contextlib.suppress(BadRequest):
        assert isinstance(parse_control({name: value}), Control)
