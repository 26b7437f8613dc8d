import asyncio

import pytest

from cacheproxy.api.connection import ClientGone, WhileConnected


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
        async with WhileConnected(client.receive):
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
    async with WhileConnected(Client().receive):
        await asyncio.sleep(0.1)


async def test_a_cancellation_from_elsewhere_stays_a_cancellation():
    async def work():
        async with WhileConnected(Client().receive):
            await asyncio.sleep(3_600)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
