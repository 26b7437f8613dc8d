"""A job thread does what it is given, in order, and what nobody wants any more it leaves."""

import asyncio
import threading
import time

import pytest

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.fairness.owner import work_for


@pytest.fixture
def thread():
    thread = JobThread("test")
    yield thread
    thread.close()


async def test_jobs_run_on_one_thread_in_the_order_asked(thread):
    ran = []

    def job(number: int) -> int:
        ran.append((number, threading.current_thread().name))
        return 2 * number

    asked = [thread.run(lambda n=n: job(n)) for n in range(50)]
    assert await asyncio.gather(*asked) == [2 * n for n in range(50)]
    assert ran == [(n, "test") for n in range(50)]


async def test_what_a_job_raises_is_its_caller_s_and_the_next_one_runs(thread):
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    assert await thread.run(lambda: "next") == "next"


async def test_a_job_whose_caller_was_cancelled_before_its_turn_is_not_run(thread):
    begun, release, ran = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        assert release.wait(10)

    first = asyncio.create_task(thread.run(hold))
    second = asyncio.create_task(thread.run(lambda: ran.append("second")))
    await asyncio.to_thread(begun.wait, 10)
    second.cancel()
    await asyncio.wait({second})
    release.set()
    await first
    await thread.run(lambda: ran.append("third"))
    assert ran == ["third"]


async def test_a_caller_that_leaves_in_the_middle_harms_nobody(thread):
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert release.wait(10)

    first = asyncio.create_task(thread.run(hold))
    await asyncio.to_thread(begun.wait, 10)
    first.cancel()
    release.set()
    assert await thread.run(lambda: "next") == "next"
    assert first.cancelled()


def test_each_event_loop_gets_its_own_answers(thread):
    for number in range(3):
        assert asyncio.run(thread.run(lambda n=number: n)) == number


async def test_what_was_asked_before_the_end_is_done():
    thread, ran = JobThread("test"), []
    asked = [asyncio.ensure_future(thread.run(lambda n=n: ran.append(n))) for n in range(5)]
    await asyncio.sleep(0)
    thread.close()
    await asyncio.gather(*asked)
    assert ran == list(range(5))


async def test_one_owner_s_job_does_not_wait_behind_another_s_hundred(thread):
    ran: list[str] = []

    async def ask(owner: str, count: int) -> None:
        work_for(owner)

        def job() -> None:
            time.sleep(0.001)
            ran.append(owner)

        await asyncio.gather(*(thread.run(job) for _ in range(count)))

    await asyncio.gather(
        asyncio.create_task(ask("hostile", 100)), asyncio.create_task(ask("quiet", 3))
    )
    assert max(i for i, owner in enumerate(ran) if owner == "quiet") < 20
