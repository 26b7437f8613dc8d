"""A tenant has few places while others are there, and as many as it likes while it is alone."""

import asyncio

import pytest

from cacheproxy.fairness.owner import work_for
from cacheproxy.fairness.seats import Seats


class Here:
    """Requests of one tenant: those that sit, and those that wait."""

    def __init__(self, seats: Seats, owner: str) -> None:
        self._seats = seats
        self._owner = owner
        self.sitting = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, requests: int) -> None:
        for _ in range(requests):
            self._seats.note(self._owner)
            self.tasks.append(asyncio.create_task(self._ask()))
        await all_go_on()

    async def _ask(self) -> None:
        work_for(self._owner)
        async with self._seats:
            self.sitting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.sitting -= 1


async def all_go_on() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def seats(clock):
    return Seats(2, monotonic=clock)


async def end(*tenants: Here) -> None:
    for tenant in tenants:
        for task in tenant.tasks:
            task.cancel()
        await asyncio.gather(*tenant.tasks, return_exceptions=True)
        assert tenant.sitting == 0


async def test_one_tenant_alone_has_as_many_as_it_likes(seats):
    alone = Here(seats, "a")
    await alone.come(10)
    assert alone.sitting == 10
    await end(alone)


async def test_who_has_company_has_a_few_and_the_company_has_its_own(seats):
    quiet, flooding = Here(seats, "quiet"), Here(seats, "flooding")
    await quiet.come(1)
    await flooding.come(10)
    assert flooding.sitting == 2
    await quiet.come(1)
    assert quiet.sitting == 2
    await end(quiet, flooding)


async def test_those_who_wait_follow_those_who_leave(seats):
    quiet, flooding = Here(seats, "quiet"), Here(seats, "flooding")
    await quiet.come(1)
    await flooding.come(3)
    flooding.tasks[0].cancel()
    await all_go_on()
    assert flooding.sitting == 2
    assert not flooding.tasks[2].done()
    await end(quiet, flooding)


async def test_once_the_company_has_gone_all_may_sit(seats, clock):
    quiet, flooding = Here(seats, "quiet"), Here(seats, "flooding")
    await quiet.come(1)
    await flooding.come(10)
    clock.now += 2
    flooding.tasks[0].cancel()
    await all_go_on()
    assert flooding.sitting == 9
    await end(quiet, flooding)


async def test_who_gives_up_waiting_leaves_no_place_taken(seats):
    quiet, flooding = Here(seats, "quiet"), Here(seats, "flooding")
    await quiet.come(1)
    await flooding.come(10)
    for task in flooding.tasks[2:]:
        task.cancel()
    await asyncio.gather(*flooding.tasks[2:], return_exceptions=True)
    for task in flooding.tasks[:2]:
        task.cancel()
    await asyncio.gather(*flooding.tasks[:2], return_exceptions=True)
    await flooding.come(2)
    assert flooding.sitting == 2
    await end(quiet, flooding)


async def test_who_gives_up_when_its_turn_has_just_come_passes_it_on(seats):
    quiet, flooding = Here(seats, "quiet"), Here(seats, "flooding")
    await quiet.come(1)
    await flooding.come(4)
    flooding.tasks[0].cancel()
    await asyncio.sleep(0)
    flooding.tasks[2].cancel()  # it has got the place, and has not gone on yet
    await all_go_on()
    assert flooding.sitting == 2
    await end(quiet, flooding)
