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
