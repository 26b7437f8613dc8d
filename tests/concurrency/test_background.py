import asyncio

import pytest

from cacheproxy.concurrency.background import BackgroundTasks, stop_tasks


async def test_tasks_have_ended_with_their_clean_up_when_stopping_returns():
    cleaned_up = []

    async def work(number):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned_up.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    await asyncio.sleep(0)
    await stop_tasks(None, *tasks)

    assert sorted(cleaned_up) == [0, 1, 2]
    assert all(task.cancelled() for task in tasks)
    await stop_tasks(None, *tasks)
    await stop_tasks()


async def test_an_error_of_a_task_is_not_raised_by_stopping_it():
    async def fail():
        raise RuntimeError("broken on purpose")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await stop_tasks(task)

    with pytest.raises(RuntimeError):
        task.result()


async def test_tasks_that_have_ended_make_room_for_others():
    tasks, may_end = BackgroundTasks(most=1), asyncio.Event()

    async def work():
        await may_end.wait()

    task = tasks.start(work())
    assert tasks.is_full
    may_end.set()
    await task
    assert not tasks.is_full

    may_end.clear()
    task = tasks.start(work())
    await asyncio.sleep(0)
    await tasks.stop()
    assert task.cancelled()
    assert not tasks.is_full
