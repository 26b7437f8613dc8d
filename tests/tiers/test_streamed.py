"""One call for many readers: late ones miss nothing, and the call waits for slow ones."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Gauge

from cacheproxy.errors import UpstreamFailed
from cacheproxy.stores.purges import Purges
from cacheproxy.tiers.flights import Flights
from cacheproxy.tiers.streamed import StreamFlight
from cacheproxy.upstreams.head import Head

HEAD = Head(200, b"text/event-stream", [], "u")
KEY = b"k" * 32
NAMESPACE = "n" * 32


@pytest.fixture
def waiting():
    return Gauge("waiting", "", registry=CollectorRegistry())


@pytest.fixture
async def flight(waiting):
    return StreamFlight(Purges(), most_bytes=1_000, waiting=waiting)


async def read_all(flight):
    with flight.read() as reader:
        await flight.head()
        return await reader.body()


async def test_readers_get_the_whole_whenever_they_join(flight, waiting):
    early = asyncio.create_task(read_all(flight))
    flight.begin(HEAD)
    await flight.add(b"one ")
    await asyncio.sleep(0)
    late = asyncio.create_task(read_all(flight))
    await flight.add(b"two")
    flight.end()

    assert await early == await late == await read_all(flight) == b"one two"
    assert waiting._value.get() == 0


async def test_a_failure_comes_after_what_had_come(flight):
    flight.begin(HEAD)
    await flight.add(b"half")
    flight.fail(UpstreamFailed("broken"))
    with flight.read() as reader:
        parts = reader.parts()
        assert await anext(parts) == b"half"
        with pytest.raises(UpstreamFailed):
            await anext(parts)


async def test_a_failure_before_the_head_is_every_readers(flight):
    readers = [asyncio.create_task(read_all(flight)) for _ in range(3)]
    await asyncio.sleep(0)
    flight.fail(UpstreamFailed("broken"))

    for reader in readers:
        with pytest.raises(UpstreamFailed):
            await reader


async def test_the_last_reader_to_leave_takes_the_call_along(flight):
    cancelled = asyncio.Event()

    async def call():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    flights = Flights(Purges())
    flights.add(flight, KEY, "plain")
    flight.start(call())
    await asyncio.sleep(0)
    first, second = flight.read(), flight.read()
    flight.leave(first)
    assert flights.get(NAMESPACE, KEY, "plain") is flight
    flight.leave(second)

    assert flights.get(NAMESPACE, KEY, "plain") is None
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_forms_do_not_share_a_call(flight):
    flights = Flights(Purges())
    flights.add(flight, KEY, "plain")

    assert flights.get(NAMESPACE, KEY, "stream") is None
    flights.remove(StreamFlight(Purges(), most_bytes=1, waiting=flight._waiting), KEY, "plain")
    assert flights.get(NAMESPACE, KEY, "plain") is flight


async def test_a_long_answer_is_passed_no_faster_than_its_slowest_reader_reads(flight):
    sent = 0

    async def flood():
        nonlocal sent
        flight.begin(HEAD)
        for _ in range(1_000):
            await flight.add(b"x" * 10_000)
            sent += 1
        flight.end()

    quick, slow = flight.read(), flight.read()
    flight.start(flood())
    eager = asyncio.create_task(quick.body())
    await asyncio.sleep(0.05)

    assert not flight.is_held
    assert sent < 40
    slow_size = 0
    async for part in slow.parts():
        slow_size += len(part)
    assert slow_size == len(await eager) == 10_000_000
