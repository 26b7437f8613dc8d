from cacheproxy.api.repeated.repeats import _MOST_BYTES, _MOST_REQUESTS, Repeats

REPEAT = object()


def test_a_request_is_known_in_its_own_namespace_only():
    repeats = Repeats()
    repeats.put("one", b"body", REPEAT)

    assert repeats.get("one", b"body") is REPEAT
    assert repeats.get("two", b"body") is None
    assert repeats.get("one", b"Body") is None


def test_the_oldest_request_makes_room():
    repeats = Repeats()
    for number in range(_MOST_REQUESTS + 1):
        repeats.put("one", b"%d" % number, REPEAT)

    assert repeats.get("one", b"0") is None
    assert repeats.get("one", b"1") is REPEAT


def test_a_long_request_is_not_kept():
    repeats = Repeats()
    repeats.put("one", b"x" * (_MOST_BYTES + 1), REPEAT)

    assert repeats.get("one", b"x" * (_MOST_BYTES + 1)) is None
