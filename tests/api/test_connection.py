import asyncio

import pytest

from cacheproxy.api.connection import ClientGone, Watch, Watched
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
