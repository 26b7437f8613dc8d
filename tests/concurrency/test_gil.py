import asyncio

import cacheproxy.concurrency.gil as module
from cacheproxy.concurrency.gil import GilYield


async def test_the_loop_naps_while_a_job_is_awaited_and_only_then(monkeypatch):
    naps = []
    monkeypatch.setattr(module.time, "sleep", naps.append)
    gil_yield = GilYield.of_running_loop()
    assert GilYield.of_running_loop() is gil_yield

    async def spin_until(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    gil_yield.begin_job()
    gil_yield.begin_job()
    await spin_until(lambda: len(naps) >= 2)
    gil_yield.end_job()
    await spin_until(lambda: len(naps) >= 4)
    gil_yield.end_job()
    napped = len(naps)
    passed = asyncio.get_running_loop().time() + 5 * module._LOOK_EVERY_S
    await spin_until(lambda: asyncio.get_running_loop().time() > passed)
    assert len(naps) == napped
    assert all(0 < nap < 1e-3 for nap in naps)


async def test_a_loop_that_waits_of_itself_is_left_alone(monkeypatch):
    naps = []
    monkeypatch.setattr(module.time, "sleep", naps.append)

    gil_yield = GilYield.of_running_loop()
    gil_yield.begin_job()
    for _ in range(20):
        await asyncio.sleep(2 * module._LOOK_EVERY_S)
    gil_yield.end_job()

    assert len(naps) <= 2  # the machine may be busy with something else
