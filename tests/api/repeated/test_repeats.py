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
    assert not repeats.knows(b"0")
    assert repeats.get("one", b"1") is REPEAT
    assert repeats.knows(b"1")


def test_a_body_is_known_while_any_namespace_has_it():
    repeats = Repeats()
    repeats.put("one", b"body", REPEAT)
    for number in range(_MOST_REQUESTS - 1):
        repeats.put("one", b"%d" % number, REPEAT)
    repeats.put("two", b"body", REPEAT)

    assert repeats.get("one", b"body") is None
    assert repeats.get("two", b"body") is REPEAT
    assert repeats.knows(b"body")


def test_a_long_request_is_not_kept():
    repeats = Repeats()
    repeats.put("one", b"x" * (_MOST_BYTES + 1), REPEAT)

    assert repeats.get("one", b"x" * (_MOST_BYTES + 1)) is None
