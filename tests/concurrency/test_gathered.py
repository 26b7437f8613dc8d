"""Calls that come while another is made are the next one, and each caller gets its own results."""

import asyncio

import pytest

from cacheproxy.concurrency.gathered import Gathered


class Doubling:
    """Returns twice each number; a call that holds a negative one fails; each waits for `go`."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go = asyncio.Semaphore(0)

    async def __call__(self, numbers) -> list[int]:
        self.calls.append([*numbers])
        await self.go.acquire()
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]


@pytest.fixture
async def doubling() -> Doubling:
    return Doubling()


async def test_calls_that_come_meanwhile_are_one_call_in_their_order(doubling):
    gathered = Gathered(doubling, most=8)
    tasks = [asyncio.create_task(gathered([n, 10 * n])) for n in range(1, 4)]
    await asyncio.sleep(0)
    assert doubling.calls == [[1, 10]], "the first waited"

    doubling.go.release()
    doubling.go.release()
    assert await asyncio.gather(*tasks) == [[2, 20], [4, 40], [6, 60]]
    assert doubling.calls == [[1, 10], [2, 20, 3, 30]]

    doubling.go.release()
    assert await gathered([7]) == [14]


async def test_a_call_has_no_more_items_than_it_may(doubling):
    gathered = Gathered(doubling, most=3)
    tasks = [asyncio.create_task(gathered([n, n])) for n in range(4)]
    for _ in range(4):
        doubling.go.release()
    await asyncio.gather(*tasks)
    assert doubling.calls == [[n, n] for n in range(4)]


async def test_what_a_call_raises_all_its_callers_get_and_the_next_is_made(doubling):
    gathered = Gathered(doubling, most=8)
    first, *failing = (asyncio.create_task(gathered([n])) for n in (1, -2, 3))
    await asyncio.sleep(0)
    doubling.go.release()
    await first
    while len(doubling.calls) < 2:
        await asyncio.sleep(0)
    last = asyncio.create_task(gathered([4]))
    await asyncio.sleep(0)
    doubling.go.release()
    doubling.go.release()
    for task in failing:
        with pytest.raises(ValueError, match="negative"):
            await task
    assert await last == [8]


@pytest.mark.parametrize("leaving", [0, 1, 2])
async def test_a_caller_that_leaves_harms_nobody(doubling, leaving):
    gathered = Gathered(doubling, most=8)
    tasks = [asyncio.create_task(gathered([n])) for n in range(3)]
    await asyncio.sleep(0)
    tasks[leaving].cancel()
    doubling.go.release()
    doubling.go.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, result in enumerate(results):
        if number == leaving:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == [2 * number]
    if leaving:
        assert doubling.calls[1] == [n for n in (1, 2) if n != leaving]
    doubling.go.release()
    assert await gathered([5]) == [10]
