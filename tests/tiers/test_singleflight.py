import asyncio

import pytest

from cacheproxy.tiers.singleflight import SingleFlight


async def test_everybody_who_waits_gets_the_result_of_one_future():
    flights = SingleFlight()
    future = asyncio.get_running_loop().create_future()
    flights.begin(b"k", future)
    waiting = [asyncio.create_task(flights.wait([flights.get(b"k")])) for _ in range(100)]
    await asyncio.sleep(0)

    future.set_result(1)

    await asyncio.gather(*waiting)
    assert flights.get(b"k") is None


async def test_one_who_leaves_takes_nothing_from_the_others():
    flights = SingleFlight()
    future = asyncio.get_running_loop().create_future()
    flight = flights.begin(b"k", future)
    leaver, stayer = (asyncio.create_task(flights.wait([flight])) for _ in range(2))
    await asyncio.sleep(0)

    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)

    assert not future.cancelled()
    future.set_result(1)
    await stayer


async def test_when_the_last_leaves_the_work_is_dropped_and_a_new_flight_may_begin():
    flights = SingleFlight()
    future = asyncio.get_running_loop().create_future()
    only = asyncio.create_task(flights.wait([flights.begin(b"k", future)]))
    await asyncio.sleep(0)

    only.cancel()
    await asyncio.gather(only, return_exceptions=True)

    assert future.cancelled()
    assert flights.get(b"k") is None


async def test_a_failed_flight_does_not_stop_the_wait_for_the_others():
    flights = SingleFlight()
    loop = asyncio.get_running_loop()
    bad, good = loop.create_future(), loop.create_future()
    waiting = asyncio.create_task(
        flights.wait([flights.begin(b"b", bad), flights.begin(b"g", good)])
    )
    await asyncio.sleep(0)

    bad.set_exception(ValueError("bad"))
    await asyncio.sleep(0)
    assert not waiting.done()
    good.set_result(1)
    await waiting

    with pytest.raises(ValueError, match="bad"):
        bad.result()
