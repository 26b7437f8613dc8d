"""No header line is lost to another of its name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.api.control import parse_control
from cacheproxy.api.request.header_fields import combined
from cacheproxy.errors import BadRequest


@pytest.mark.parametrize("order", [1, -1])
def test_no_store_counts_on_whichever_line_it_stands(order):
    lines = [(b"cache-control", b"no-store"), (b"cache-control", b"max-age=60")][::order]

    control = parse_control(combined(lines))

    assert control.no_store
    assert control.max_age_s == 60


def test_tags_of_all_lines_count():
    lines = [(b"x-cacheproxy-tags", b"a, b"), (b"accept", b"*/*"), (b"x-cacheproxy-tags", b"c")]

    assert parse_control(combined(lines)).tags == ("a", "b", "c")


@pytest.mark.parametrize(
    "name",
    [
        *(b"authorization", b"x-api-key", b"content-type", b"x-cacheproxy-namespace"),
        *(b"x-cacheproxy-ttl", b"x-cacheproxy-semantic", b"x-cacheproxy-min-similarity"),
    ],
)
def test_two_values_of_a_header_that_takes_one_are_refused(name):
    assert combined([(name, b"1"), (name, b"1")]) == {name: b"1"}
    with pytest.raises(BadRequest, match="only once") as raised:
        combined([(name, b"1"), (name, b"2")])
    assert raised.value.code == "duplicate_header"


def test_two_hosts_are_refused_even_if_they_are_equal():
    with pytest.raises(BadRequest):
        combined([(b"host", b"x"), (b"host", b"x")])


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=5))))
def test_every_value_of_a_list_is_kept_in_its_order(lines):
    for name, value in combined(lines).items():
        assert value == b", ".join(each for other, each in lines if other == name)
