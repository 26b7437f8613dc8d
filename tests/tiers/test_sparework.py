import asyncio

from cacheproxy.tiers.sparework import SpareWork


async def test_work_is_begun_in_order_one_piece_at_a_time_and_only_when_there_is_room():
    spare, begun = False, []
    work = SpareWork(lambda: spare, most=10)
    work.start()
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]

    def piece(number):
        def begin():
            begun.append(number)
            return futures[number]

        return begin

    for number in range(3):
        work.put(piece(number))
    await asyncio.sleep(0.02)
    assert begun == []

    spare = True
    async with asyncio.timeout(5):
        while begun != [0]:
            await asyncio.sleep(0.001)
        futures[0].set_result(None)
        while begun != [0, 1]:
            await asyncio.sleep(0.001)
        futures[1].set_exception(RuntimeError("its own business"))
        while begun != [0, 1, 2]:
            await asyncio.sleep(0.001)
    futures[1].exception()
    await work.stop()


async def test_work_that_has_become_needless_holds_nothing_up():
    done = asyncio.Event()
    work = SpareWork(lambda: True, most=2)
    work.put(lambda: None)
    assert not work.is_full
    work.put(done.set)
    assert work.is_full
    work.start()

    await asyncio.wait_for(done.wait(), 5)
    await work.stop()
