"""What comes until a thread gets round to it is one call, and each caller gets its own results."""

import asyncio
import threading

import pytest

from cacheproxy.concurrency.gathered import Gathered
from cacheproxy.concurrency.job_thread import JobThread


class Doubling:
    """Returns twice each number, on a thread that a test may hold up; fails on negative ones."""

    def __init__(self, thread: JobThread) -> None:
        self.calls: list[list[int]] = []
        self.gathered = Gathered[int, int](thread.run, self._double, most=4)
        self.reached, self.go = threading.Event(), threading.Event()
        self.holds = False

    def _double(self, numbers) -> list[int]:
        self.calls.append([*numbers])
        if self.holds:
            self.holds = False
            self.reached.set()
            assert self.go.wait(10)
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]

    async def held(self, numbers) -> asyncio.Task:
        """Begin a call, which `go` ends."""
        self.holds = True
        task = asyncio.create_task(self.gathered(numbers))
        assert await asyncio.to_thread(self.reached.wait, 10)
        return task

    async def asked(self, *many) -> list[asyncio.Task]:
        tasks = [asyncio.create_task(self.gathered(numbers)) for numbers in many]
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
def thread():
    thread = JobThread("test")
    yield thread
    thread.close()


@pytest.fixture
def doubling(thread) -> Doubling:
    return Doubling(thread)


async def test_what_comes_meanwhile_is_one_call_in_its_order(doubling):
    first = await doubling.held([1])
    tasks = await doubling.asked([2, 20], [3])
    doubling.go.set()
    assert await asyncio.gather(first, *tasks) == [[2], [4, 40], [6]]
    assert doubling.calls == [[1], [2, 20, 3]]
    assert await doubling.gathered([7]) == [14]


async def test_a_call_has_no_more_items_than_it_may(doubling):
    first = await doubling.held([1])
    tasks = await doubling.asked(*([n, n, n] for n in range(3)))
    doubling.go.set()
    assert await asyncio.gather(first, *tasks) == [[2], *([2 * n] * 3 for n in range(3))]
    assert doubling.calls == [[1], [0, 0, 0], [1, 1, 1], [2, 2, 2]]


async def test_what_a_call_raises_all_its_callers_get_and_the_next_is_made(doubling):
    first = await doubling.held([1])
    failing = await doubling.asked([-2], [3])
    doubling.go.set()
    assert await first == [2]
    for task in failing:
        with pytest.raises(ValueError, match="negative"):
            await task
    assert await doubling.gathered([4]) == [8]


@pytest.mark.parametrize("leaving", [0, 1, 2])
async def test_a_caller_that_leaves_before_its_turn_harms_nobody(doubling, leaving):
    first = await doubling.held([9])
    tasks = await doubling.asked([0], [1], [2])
    tasks[leaving].cancel()
    await asyncio.wait({tasks[leaving]})
    doubling.go.set()
    await first
    staying = [number for number in range(3) if number != leaving]
    assert [await tasks[number] for number in staying] == [[2 * number] for number in staying]
    assert doubling.calls[1] == staying


@pytest.mark.parametrize("fails", [False, True])
async def test_a_caller_that_leaves_in_the_middle_harms_nobody(doubling, fails):
    before = await doubling.held([9])
    first, second = await doubling.asked([1], [-2 if fails else 2])
    doubling.reached.clear()
    doubling.holds = True
    go, doubling.go = doubling.go, threading.Event()
    go.set()
    assert await before == [18]
    assert await asyncio.to_thread(doubling.reached.wait, 10)

    first.cancel()
    await asyncio.wait({first})
    doubling.go.set()

    if fails:
        with pytest.raises(ValueError, match="negative"):
            await second
    else:
        assert await second == [4]
    assert await doubling.gathered([5]) == [10]


async def test_where_no_job_can_run_all_who_wait_are_told_and_the_next_may_succeed():
    fails = True

    async def run(job) -> None:
        await asyncio.sleep(0.01)
        if fails:
            raise OSError("no connection")
        job()

    gathered = Gathered[int, int](run, lambda numbers: [2 * number for number in numbers], most=4)
    asked = (gathered([n, n]) for n in range(5))
    told = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert [str(error) for error in told] == ["no connection"] * 5
    fails = False
    assert await gathered([4]) == [8]
