import asyncio
import logging

from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.sparework import SpareWork


async def test_work_begins_in_order_one_piece_at_a_time_and_only_when_allowed():
    spare, begun = False, []
    work = SpareWork(lambda: spare, most=10, metrics=Metrics())
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
    work = SpareWork(lambda: True, most=2, metrics=Metrics())
    work.put(lambda: None)
    assert not work.is_full
    work.put(done.set)
    assert work.is_full
    work.start()

    await asyncio.wait_for(done.wait(), 5)
    await work.stop()


async def test_work_continues_after_failures_which_are_counted_and_rarely_logged(caplog):
    metrics, done = Metrics(), asyncio.Event()
    failures = 20

    def may_begin():
        nonlocal failures
        if failures == 20:
            failures -= 1
            raise RuntimeError("cannot tell")
        return True

    def fail():
        nonlocal failures
        failures -= 1
        raise RuntimeError("cannot begin")

    work = SpareWork(may_begin, most=30, metrics=metrics)
    for _ in range(19):
        work.put(fail)
    work.put(done.set)
    work.start()
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(done.wait(), 5)
    await work.stop()

    assert failures == 0
    assert len(work) == 0
    assert metrics.registry.get_sample_value("cacheproxy_semantic_check_errors_total") == 20
    assert len(caplog.records) == 1
