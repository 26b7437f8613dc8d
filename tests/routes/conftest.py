"""Starts the harness of the items route."""

import asyncio

import pytest
from items_harness import Harness


@pytest.fixture
async def start():
    started = []

    def make(**settings):
        harness = Harness(**settings)
        harness.writeback.start()
        harness.threads.start()
        harness.spare_work.start()
        started.append(harness)
        return harness

    yield make
    for harness in started:
        await harness.spare_work.stop()
        await asyncio.to_thread(harness.threads.stop)
        await harness.writeback.stop(timeout_s=0)
        await harness.guard.close()
