"""Request coalescing: one result for everyone who waits, and nobody's leaving harms the others."""

import asyncio

import pytest

from cacheproxy.stores.purges import Purges, Scope
from cacheproxy.tiers.flights import Flights, FutureFlight, release_all, wait_for_all

NAMESPACE = "n" * 32
KEY = b"k" * 32


@pytest.fixture
def purges():
    return Purges()


def begin(flights, purges, key=KEY):
    flight = FutureFlight(asyncio.get_running_loop().create_future(), purges)
    flights.add(flight, key)
    return flight


async def results_of(flights):
    for flight in flights:
        flight.hold()
    try:
        await wait_for_all(flights)
    finally:
        release_all(flights)


async def test_everybody_who_waits_gets_the_result_of_one_future(purges):
    flights = Flights(purges)
    flight = begin(flights, purges)
    joined = [flights.get(NAMESPACE, KEY) for _ in range(100)]
    waiting = [asyncio.create_task(results_of([one])) for one in joined]
    await asyncio.sleep(0)

    flight.future.set_result(1)

    await asyncio.gather(*waiting)
    assert {one.future.result() for one in joined} == {1}


async def test_a_request_that_leaves_takes_nothing_from_the_others(purges):
    flight = begin(Flights(purges), purges)
    leaver, stayer = (asyncio.create_task(results_of([flight])) for _ in range(2))
    await asyncio.sleep(0)

    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)

    assert not flight.future.cancelled()
    flight.future.set_result(1)
    await stayer


async def test_when_the_last_waiter_leaves_the_call_is_cancelled_and_cannot_be_joined(purges):
    flights = Flights(purges)
    flight = begin(flights, purges)
    only = asyncio.create_task(results_of([flight]))
    await asyncio.sleep(0)

    only.cancel()
    await asyncio.gather(only, return_exceptions=True)

    assert flight.future.cancelled()
    assert flights.get(NAMESPACE, KEY) is None


async def test_a_failed_flight_does_not_end_the_wait_for_the_others(purges):
    flights = Flights(purges)
    bad, good = begin(flights, purges, b"b"), begin(flights, purges, b"g")
    waiting = asyncio.create_task(results_of([bad, good]))
    await asyncio.sleep(0)

    bad.future.set_exception(ValueError("bad"))
    await asyncio.sleep(0)
    assert not waiting.done()
    good.future.set_result(1)
    await waiting

    with pytest.raises(ValueError, match="bad"):
        bad.future.result()


async def test_a_flight_that_began_before_a_purge_is_not_joined_after_it(purges):
    flights = Flights(purges)
    flight = begin(flights, purges)
    assert flights.get(NAMESPACE, KEY) is flight

    purges.purged(Scope(NAMESPACE), 1)

    assert flights.get(NAMESPACE, KEY) is None
    again = begin(flights, purges)
    assert flights.get(NAMESPACE, KEY) is again
    flights.remove(flight, KEY)  # an older flight that ends does not take a newer one away
    assert flights.get(NAMESPACE, KEY) is again


async def test_flights_of_different_forms_do_not_meet(purges):
    flights = Flights(purges)
    flight = FutureFlight(asyncio.get_running_loop().create_future(), purges)
    flights.add(flight, KEY, "stream")

    assert flights.get(NAMESPACE, KEY, "plain") is None
    assert flights.get(NAMESPACE, KEY, "stream") is flight
