import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.inference.queue import QueuedText, TextQueue


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def make_queue(
    window_s: float = 0.0, budget: int = 64, timeout_s: float = 60.0, workers: int = 1
) -> TextQueue:
    return TextQueue(
        window_s=window_s,
        max_group_tokens=budget,
        shared_group_tokens=64,
        timeout_s=timeout_s,
        workers=workers,
    )


def texts_of(loop: asyncio.AbstractEventLoop, *lengths: int) -> list[QueuedText]:
    return [QueuedText([7] * length, loop.create_future()) for length in lengths]


def test_a_group_holds_one_length_within_the_token_budget(loop):
    queue = make_queue(budget=30)
    queue.put(texts_of(loop, 10, 10, 5, 10, 10), now=0.0)

    group = queue.take(now=1.0).group

    assert [len(text.ids) for text in group] == [10, 10, 10]


def test_what_waits_is_shared_among_the_workers_to_its_end(loop):
    queue = make_queue(budget=50, workers=2)
    queue.put(texts_of(loop, *[10] * 16), now=0.0)

    sizes = []
    while group := queue.take(now=1.0).group:
        sizes.append(len(group))

    assert sizes == [5, 5, 3, 2, 1]


def test_groups_are_small_while_requests_share_the_queue(loop):
    queue = make_queue(budget=256)
    queue.put(texts_of(loop, *[16] * 100), now=0.0)
    sizes = [len(queue.take(now=0.0).group)]
    queue.put(texts_of(loop, 16), now=1.0)
    sizes += [len(queue.take(now=now).group) for now in (1.0, 1.5, 3.0)]

    assert sizes == [16, 4, 4, 16]


def test_a_request_put_in_parts_is_one_request(loop):
    queue = make_queue(budget=256)
    reservation = queue.begin(10)
    queue.put(texts_of(loop, *[16] * 40), now=0.0, reservation=reservation)
    queue.put(texts_of(loop, *[16] * 40), now=0.0, reservation=reservation)
    assert queue.tokens_ahead(1_000_000) == 80 * 16
    assert len(queue.take(now=0.0).group) == 16  # not shared with anybody

    queue.put(texts_of(loop, 8), now=0.0)

    assert [len(text.ids) for text in queue.take(now=1.0).group] in ([16] * 4, [8])
    assert queue.tokens_ahead(8) <= 16


def test_a_text_longer_than_the_budget_goes_alone(loop):
    queue = make_queue(budget=30)
    queue.put(texts_of(loop, 200, 200), now=0.0)

    assert len(queue.take(now=1.0).group) == 1


@given(
    requests=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=20), max_size=8),
    window_s=st.sampled_from([0.0, 0.005, 100.0]),
)
def test_every_text_is_taken_exactly_once(loop, requests, window_s):
    queue = make_queue(window_s)
    put = [texts_of(loop, *lengths) for lengths in requests]
    for now, texts in enumerate(put):
        queue.put(texts, now=float(now))

    taken = []
    while group := queue.take(now=10.0).group:
        assert len({len(text.ids) for text in group}) == 1
        taken += group

    assert sorted(map(id, taken)) == sorted(id(text) for texts in put for text in texts)
    assert len(queue) == 0
    assert queue.tokens_ahead(1_000_000) == 0


def test_one_text_is_not_stuck_behind_a_request_of_many(loop):
    queue = make_queue(budget=32)
    queue.put(texts_of(loop, *[16] * 500), now=0.0)
    queue.take(now=0.1)
    (single,) = texts_of(loop, 9)
    queue.put([single], now=0.2)

    groups = [queue.take(now=0.3).group for _ in range(2)]

    assert [single] in groups


def test_mates_of_a_group_do_not_put_later_requests_behind_them(loop):
    queue = make_queue(budget=64)
    queue.put(texts_of(loop, *[4 + i % 13 for i in range(500)]), now=0.0)
    for _ in range(3):
        queue.take(now=1.0)
    single = texts_of(loop, 9)
    queue.put(single, now=1.0)

    taken = [queue.take(now=2.0 + turn).group for turn in range(4)]

    assert any(single[0] in group for group in taken)


def test_requests_of_many_share_the_turns(loop):
    queue = make_queue(budget=16)
    first, second = texts_of(loop, *[16] * 50), texts_of(loop, *[15] * 50)
    queue.put(first, now=0.0)
    queue.put(second, now=0.0)

    lengths = [len(queue.take(now=1.0).group[0].ids) for _ in range(40)]

    assert 15 <= lengths.count(16) <= 25


def test_the_fuller_group_goes_first_only_within_the_batching_window(loop):
    queue = make_queue(window_s=0.005)
    queue.put(texts_of(loop, 3), now=0.0)
    for _ in range(12):
        queue.put(texts_of(loop, 8), now=0.0)

    assert len(queue.take(now=0.004).group[0].ids) == 8
    assert len(queue.take(now=0.006).group[0].ids) == 3


def test_a_text_that_nobody_wants_any_more_is_dropped(loop):
    queue = make_queue()
    gone, wanted = texts_of(loop, 5, 5)
    queue.put([gone, wanted], now=0.0)
    gone.future.cancel()

    assert queue.take(now=1.0).group == [wanted]


def test_a_text_past_its_time_is_handed_back_as_expired(loop):
    queue = make_queue(timeout_s=2.0)
    (late,) = texts_of(loop, 5)
    queue.put([late], now=0.0)

    taken = queue.take(now=2.5)

    assert taken.group == []
    assert taken.expired == [late]


def test_what_is_ahead_of_a_small_request_does_not_grow_with_a_big_one(loop):
    queue = make_queue()
    queue.put(texts_of(loop, *[100] * 50), now=0.0)

    assert queue.tokens_ahead(20) == 20
    assert queue.tokens_ahead(10_000) == 5_000


def test_a_place_is_kept_until_it_is_taken_or_given_up(loop):
    queue = make_queue()
    first, second = queue.begin(30), queue.begin(20)

    assert queue.tokens_ahead(100) == 50
    queue.put(texts_of(loop, 10), 0.0, first)
    assert queue.tokens_ahead(100) == 50
    queue.put(texts_of(loop, 20), 0.0, first)
    queue.end(second)
    assert queue.tokens_ahead(100) == 30
    while queue.take(0.0).group:
        pass
    assert queue.tokens_ahead(100) == 0
