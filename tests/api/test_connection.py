import asyncio
import gc

import pytest

from cacheproxy.api.connection import ClientGone, Watch, Watched
from cacheproxy.api.request.body_budget import BodyBudget
from cacheproxy.errors import BadRequest


class Client:
    def __init__(self):
        self.left = asyncio.Event()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_work_for_a_client_that_leaves_is_cancelled():
    client = Client()
    cancelled = False

    async def work():
        nonlocal cancelled
        with Watched(Watch(body_timeout_s=60), client.receive) as exchange:
            exchange.body_has_come()
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                cancelled = True
                raise

    working = asyncio.create_task(work())
    client.left.set()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(working, 10)
    assert cancelled


async def test_work_for_a_client_that_stays_is_not_disturbed():
    with Watched(Watch(body_timeout_s=60), Client().receive) as exchange:
        exchange.body_has_come()
        await asyncio.sleep(0.2)


async def test_a_cancellation_from_elsewhere_stays_a_cancellation():
    async def work():
        with Watched(Watch(body_timeout_s=60), Client().receive) as exchange:
            exchange.body_has_come()
            await asyncio.sleep(3_600)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_a_body_that_does_not_come_ends_the_exchange():
    started = asyncio.get_running_loop().time()
    watch = Watch(body_timeout_s=0.1)
    with pytest.raises(BadRequest) as raised, Watched(watch, Client().receive):
        await asyncio.sleep(3_600)

    assert raised.value.status == 408
    assert asyncio.get_running_loop().time() - started < 10


async def test_a_client_that_leaves_after_a_slow_body_is_seen():
    client = Client()

    async def work():
        with Watched(Watch(body_timeout_s=60), client.receive) as exchange:
            await asyncio.sleep(0.2)  # longer than the watch's patience
            exchange.body_has_come()
            client.left.set()
            await asyncio.sleep(3_600)

    with pytest.raises(ClientGone):
        await asyncio.wait_for(work(), 10)


async def test_what_was_read_is_freed_with_the_error_and_not_by_the_garbage_collector():
    freed = []

    class Part(bytes):
        def __del__(self):
            freed.append(True)

    async def read():
        with Watched(Watch(body_timeout_s=0.1), Client().receive):
            part = Part(b"a part of a body")
            await asyncio.sleep(3_600)
            assert part

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(BadRequest):
            await read()
        await asyncio.sleep(0)
        assert freed
    finally:
        gc.enable()


async def test_an_exchange_that_took_a_while_is_freed_at_its_end():
    freed = []

    class FreedClient(Client):
        def __del__(self):
            freed.append(True)

    watch = Watch(body_timeout_s=60)
    gc.collect()
    gc.disable()
    try:
        with Watched(watch, FreedClient().receive) as exchange:
            exchange.body_has_come()
            exchange.begin()
            await asyncio.sleep(0)
        del exchange
        for _ in range(3):  # the watcher's cancellation
            await asyncio.sleep(0)
        assert freed
    finally:
        gc.enable()


class Refuses:
    def labels(self, _):
        return self

    def inc(self):
        self.counted = True


async def test_the_budget_gets_its_bytes_back_at_the_end_of_an_exchange():
    freed = []
    budget = BodyBudget(all_bytes=100, caller_bytes=60, shed=Refuses(), freed=freed.append)
    watch = Watch(body_timeout_s=60, budget=budget)

    async def fail() -> None:
        with Watched(watch, Client().receive, "a") as exchange:
            exchange.take(20)
            exchange.take(30)
            assert budget.taken_bytes == 50
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert budget.taken_bytes == 0
    assert freed == [50]
