import asyncio
import threading

import numpy as np
import pytest

from cacheproxy.errors import InferenceFailed, Overloaded, Unavailable
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.telemetry.metrics import Metrics

POISON = 666
ZERO = 667


class Recorder:
    """An encoder whose vectors are made of the ids, and which can be held back."""

    def __init__(self):
        self.groups = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = threading.Event()

    def __call__(self, ids):
        self.running.set()
        assert self.may_run.wait(30)
        self.groups.append(ids.tolist())
        if (ids == POISON).any():
            raise RuntimeError("poisoned")
        vectors = np.ones((len(ids), 4), np.float32) * ids[:, :1]
        vectors[(ids == ZERO).any(axis=1)] = 0
        return vectors


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def threads():
    return InferenceThreads(1)


@pytest.fixture
async def batcher(recorder, threads):
    batcher = make_batcher(recorder, threads)
    threads.start()
    yield batcher
    recorder.may_run.set()
    await asyncio.to_thread(threads.stop)


def make_batcher(encode, threads, **changes):
    settings = {"max_wait_s": 5.0, "timeout_s": 60.0, "threads": threads} | changes
    queue = TextQueue(
        window_s=0.005,
        max_group_tokens=64,
        shared_group_tokens=64,
        timeout_s=settings.pop("timeout_s"),
        workers=1,
    )
    return Batcher(encode, model="m", queue=queue, metrics=Metrics(), **settings)


async def test_each_text_gets_its_own_vector(batcher):
    futures = batcher.submit([[3, 1], [5, 1], [7, 1, 1]])

    vectors = await asyncio.gather(*futures)

    assert [vector[0] for vector in vectors] == [3, 5, 7]


async def test_an_idle_batcher_runs_a_text_without_waiting_for_others(batcher, recorder):
    await asyncio.gather(*batcher.submit([[3, 1]]))

    assert recorder.groups == [[[3, 1]]]


async def test_texts_that_arrive_while_it_works_are_grouped(batcher, recorder):
    recorder.may_run.clear()
    first = batcher.submit([[1]])
    assert await asyncio.to_thread(recorder.running.wait, 10)
    rest = [future for i in range(2, 8) for future in batcher.submit([[i]])]
    recorder.may_run.set()

    await asyncio.gather(*first, *rest)

    assert recorder.groups == [[[1]], [[i] for i in range(2, 8)]]


async def test_a_text_that_raises_fails_alone(batcher):
    futures = batcher.submit([[i, 1] for i in (1, 2, POISON, 3, 4)])

    outcomes = await asyncio.gather(*futures, return_exceptions=True)

    assert isinstance(outcomes.pop(2), InferenceFailed)
    assert [vector[0] for vector in outcomes] == [1, 2, 3, 4]


async def test_a_vector_without_direction_is_an_error_and_its_mates_are_served(batcher):
    good, zero = await asyncio.gather(*batcher.submit([[1], [ZERO]]), return_exceptions=True)

    assert good[0] == 1
    assert isinstance(zero, InferenceFailed)


async def test_a_text_whose_waiters_left_is_not_inferred(batcher, recorder):
    recorder.may_run.clear()
    first = batcher.submit([[1]])
    assert await asyncio.to_thread(recorder.running.wait, 10)
    (gone,) = batcher.submit([[2]])
    (stays,) = batcher.submit([[3]])
    gone.cancel()
    recorder.may_run.set()

    await asyncio.gather(*first, stays)

    assert [[2]] not in recorder.groups


async def test_a_queue_that_is_too_long_refuses_with_a_time_to_retry(recorder, threads):
    batcher = make_batcher(recorder, threads, max_wait_s=0.001)
    threads.start()
    recorder.may_run.clear()
    accepted = []

    def submit_without_end():
        while True:
            accepted.extend(batcher.submit([[1] * 8]))

    with pytest.raises(Overloaded) as refused:
        submit_without_end()
    recorder.may_run.set()

    assert refused.value.status == 429
    assert refused.value.retry_after_s >= 1
    await asyncio.gather(*accepted)
    await asyncio.to_thread(threads.stop)


async def test_an_accepted_text_that_waits_too_long_is_told_so(recorder, threads):
    batcher = make_batcher(recorder, threads, timeout_s=0.0)
    recorder.may_run.clear()
    (future,) = batcher.submit([[1]])
    threads.start()

    with pytest.raises(Unavailable):
        await future
    recorder.may_run.set()
    await asyncio.to_thread(threads.stop)


async def test_stopping_finishes_what_is_queued_and_refuses_what_comes_after(recorder, threads):
    batcher = make_batcher(recorder, threads)
    futures = batcher.submit([[i] for i in range(1, 20)])
    threads.start()
    await asyncio.to_thread(threads.stop)

    assert [vector[0] for vector in await asyncio.gather(*futures)] == list(range(1, 20))
    with pytest.raises(Unavailable):
        batcher.submit([[1]])


async def test_a_request_may_be_submitted_in_parts(batcher):
    turn = batcher.begin(6)
    futures = [future for i in range(1, 4) for future in batcher.submit([[i], [i, 1]], turn)]

    vectors = await asyncio.gather(*futures)

    assert [vector[0] for vector in vectors] == [1, 1, 2, 2, 3, 3]
