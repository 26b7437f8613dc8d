"""The second engine answers where the first fails, and only there."""

import asyncio

import numpy as np
import pytest

from cacheproxy.errors import BadRequest, InferenceFailed, Overloaded
from cacheproxy.inference.engine import Given, Inferred
from cacheproxy.upstreams.standin import StandIn

ONES = np.ones(2, np.float32)


class Engine:
    """Answers at once, or fails as it is told."""

    def __init__(self, error=None):
        self.error = error
        self.submitted = 0
        self.held = []

    def submit(self, givens, turn=None):
        if isinstance(self.error, Overloaded):
            raise self.error
        self.submitted += len(givens)
        futures = [asyncio.get_running_loop().create_future() for _ in givens]
        for future, given in zip(futures, givens, strict=True):
            if self.error == "hold":
                self.held.append(future)
            elif self.error and given.input != "fine":
                future.set_exception(self.error)
            else:
                future.set_result(ONES)
        return futures

    def read(self, result, given):
        return Inferred(result, len(given.ids))


async def infer(engine, *texts):
    futures = engine.submit([Given(text, (1, 2)) for text in texts])
    async with asyncio.timeout(5):
        await asyncio.wait(futures)
    return [future.exception() or future.result() for future in futures]


async def test_while_the_first_is_well_it_answers_alone():
    first, second = Engine(), Engine()

    results = await infer(StandIn(first, second, keyed_by=first), "a", "b")

    assert all(result.may_keep for result in results)
    assert second.submitted == 0


@pytest.mark.parametrize("error", [InferenceFailed("broken"), Overloaded("busy")])
async def test_what_the_first_fails_in_is_answered_by_the_second_and_not_kept(error):
    first, second = Engine(error), Engine()

    failed, fine = await infer(StandIn(first, second, keyed_by=first), "a", "fine")

    assert not failed.may_keep
    assert fine.may_keep == (not isinstance(error, Overloaded))


async def test_a_clients_mistake_stays_one():
    first, second = Engine(BadRequest("bad")), Engine()

    (result,) = await infer(StandIn(first, second, keyed_by=first), "a")

    assert isinstance(result, BadRequest)
    assert second.submitted == 0


async def test_the_failure_of_both_is_told():
    failing = StandIn(Engine(InferenceFailed("one")), Engine(InferenceFailed("two")), Engine())

    (result,) = await infer(failing, "a")

    assert str(result) == "two"


async def test_a_first_engine_that_keeps_failing_is_skipped_and_probed_later():
    now = 100.0
    first, second = Engine(InferenceFailed("broken")), Engine()
    engine = StandIn(first, second, keyed_by=first, monotonic=lambda: now)
    for _ in range(10):
        now += 0.01
        await infer(engine, "a")
    asked = first.submitted
    assert asked < 10

    first.error = None
    now += 2
    assert (await infer(engine, "a"))[0].may_keep
    assert first.submitted == asked + 1


async def test_work_that_nobody_waits_for_any_more_is_dropped():
    first = Engine("hold")
    engine = StandIn(first, Engine(), keyed_by=first)
    (future,) = engine.submit([Given("a", (1,))])
    await asyncio.sleep(0.01)
    future.cancel()
    async with asyncio.timeout(5):
        while not first.held[0].cancelled():
            await asyncio.sleep(0.001)
