"""Owners share inference by tokens, however many requests and texts each of them queues."""

import asyncio
from collections.abc import Iterator

import pytest

from cacheproxy.fairness.shelves import Terms
from cacheproxy.inference.queue import QueuedText, TextQueue


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def make_queue(**more) -> TextQueue:
    return TextQueue(
        window_s=0.0,
        max_group_tokens=64,
        shared_group_tokens=64,
        timeout_s=60.0,
        workers=1,
        **more,
    )


def put(queue: TextQueue, loop, owner: str, *lengths: int) -> None:
    texts = [QueuedText([7] * length, loop.create_future()) for length in lengths]
    queue.put(texts, 0.0, queue.begin(sum(lengths), owner))


def owners_of(queue: TextQueue) -> list[str]:
    return [text.owner for text in queue.take(1.0).group]


def test_one_request_waits_for_one_group_of_another_owner_s_hundred_requests(loop):
    queue = make_queue()
    for _ in range(100):
        put(queue, loop, "hostile", 16, 16)
    owners_of(queue)
    put(queue, loop, "quiet", 20)

    assert owners_of(queue) == ["quiet"]


def test_two_owners_get_as_many_tokens_whatever_their_requests_are_like(loop):
    queue = make_queue()
    put(queue, loop, "bulk", *[60] * 100)
    for _ in range(400):
        put(queue, loop, "small", 15)

    tokens = {"bulk": 0, "small": 0}
    for _ in range(40):
        for text in queue.take(1.0).group:
            tokens[text.owner] += len(text.ids)
    assert abs(tokens["bulk"] - tokens["small"]) <= 64


def test_a_larger_share_gets_more(loop):
    shares = {"paying": Terms(share=3), "free": Terms()}
    queue = make_queue(terms=shares.__getitem__)
    for owner in shares:
        put(queue, loop, owner, *[60 if owner == "free" else 61] * 100)

    owners = [owners_of(queue)[0] for _ in range(40)]
    assert 29 <= owners.count("paying") <= 31


def test_a_group_is_filled_with_other_owners_texts_of_its_length(loop):
    queue = make_queue()
    put(queue, loop, "a", 16)
    put(queue, loop, "b", 16)
    put(queue, loop, "b", 16)
    put(queue, loop, "b", 16)

    assert sorted(owners_of(queue)) == ["a", "b", "b", "b"]
    assert len(queue) == 0


def test_an_owner_that_was_away_does_not_catch_up(loop):
    queue = make_queue()
    put(queue, loop, "busy", *[60] * 100)
    for _ in range(50):
        queue.take(1.0)
    put(queue, loop, "back", *[61] * 50)

    owners = [owners_of(queue)[0] for _ in range(20)]
    assert 9 <= owners.count("back") <= 11


def test_a_flood_is_only_as_long_for_another_owner_as_that_one_s_own_work(loop):
    queue = make_queue()
    for _ in range(100):
        put(queue, loop, "hostile", 50)
    put(queue, loop, "quiet", 30)

    assert queue.tokens_ahead(20, "quiet") == 20 + 40
    assert queue.tokens_ahead(20, "hostile") == 100 * 20 + 30
    assert queue.tokens_ahead(20, "third") == 20 + 20


def test_reservations_count_for_their_owner_until_they_end(loop):
    queue = make_queue()
    reservation = queue.begin(100, "a")
    assert queue.tokens_ahead(1_000, "a") == 100
    queue.end(reservation)
    assert queue.tokens_ahead(1_000, "a") == 0
    assert not queue.is_waiting("a")
