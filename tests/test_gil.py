import asyncio

import cacheproxy.gil as module
from cacheproxy.gil import GilYield


async def test_the_loop_naps_while_a_job_is_awaited_and_only_then(monkeypatch):
    naps = []
    monkeypatch.setattr(module.time, "sleep", naps.append)
    gil_yield = GilYield()

    async def spin_until(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    with gil_yield.during_job():
        with gil_yield.during_job():
            await spin_until(lambda: len(naps) >= 2)
        await spin_until(lambda: len(naps) >= 4)
    napped = len(naps)
    passed = asyncio.get_running_loop().time() + 20 * module._YIELD_EVERY_S
    await spin_until(lambda: asyncio.get_running_loop().time() > passed)
    assert len(naps) == napped
    assert all(0 < nap < 1e-3 for nap in naps)


async def test_a_loop_that_waits_of_itself_is_left_alone(monkeypatch):
    naps = []
    monkeypatch.setattr(module.time, "sleep", naps.append)

    with GilYield().during_job():
        for _ in range(20):
            await asyncio.sleep(2 * module._YIELD_EVERY_S)

    assert len(naps) <= 2  # the machine may be busy with something else
