"""Several models on the same threads: none waits for another's backlog, and all share by tokens."""

import asyncio
import threading

import numpy as np
import pytest

from cacheproxy.errors import Overloaded
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.spread import Spread
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.telemetry.metrics import Metrics

GROUP_TOKENS = 4


class Models:
    """Batchers on one set of threads, and the order in which they ran tokens."""

    def __init__(self, threads: int) -> None:
        self.threads = InferenceThreads(threads)
        self.ran: list[tuple[str, int]] = []
        self.alone: list[int] = []
        self.gates: dict[str, threading.Event] = {}
        self.running: dict[str, threading.Semaphore] = {}
        self._metrics = Metrics()

    def add(self, name: str, *, max_wait_s: float = 60.0) -> Batcher:
        self.gates[name] = threading.Event()
        self.running[name] = threading.Semaphore(0)

        def encode(ids):
            self.running[name].release()
            assert self.gates[name].wait(30)
            self.ran.append((name, ids.size))
            return np.ones((len(ids), 4), np.float32) * ids[:, :1]

        def encode_alone(ids):
            self.alone.append(ids.size)
            return encode(ids)

        queue = TextQueue(
            window_s=0.005,
            max_group_tokens=GROUP_TOKENS,
            shared_group_tokens=GROUP_TOKENS,
            timeout_s=60,
            workers=self.threads.count,
        )
        return Batcher(
            encode,
            encode_alone=encode_alone,
            model=name,
            threads=self.threads,
            queue=queue,
            max_wait_s=max_wait_s,
            metrics=self._metrics,
        )

    async def runs(self, name: str) -> None:
        """Wait until a group of a model has begun."""
        assert await asyncio.to_thread(self.running[name].acquire, timeout=30)


@pytest.fixture
async def models():
    made = []

    def make(threads: int) -> Models:
        made.append(Models(threads))
        return made[-1]

    yield make
    for one in made:
        for gate in one.gates.values():
            gate.set()
        await asyncio.to_thread(one.threads.stop)


async def test_a_model_starts_at_once_while_all_threads_run_groups_of_another(models):
    both = models(2)
    large, small = both.add("large"), both.add("small")
    both.gates["small"].set()
    both.threads.start()
    flood = large.submit([[1] * GROUP_TOKENS] * 10)
    for _ in range(2):
        await both.runs("large")

    (vector,) = await asyncio.gather(*small.submit([[7]]))

    assert vector[0] == 7
    assert both.ran == [("small", 1)]  # no group of the other model has even ended
    both.gates["large"].set()
    await asyncio.gather(*flood)


async def test_a_model_gets_one_thread_beyond_the_others_and_no_more(models):
    both = models(1)
    large, small = both.add("large"), both.add("small")
    both.threads.start()
    texts = [*large.submit([[1]] * 3), *small.submit([[1]] * 3)]
    for name in ("large", "small"):
        await both.runs(name)
        assert not both.running[name].acquire(blocking=False)
    for gate in both.gates.values():
        gate.set()

    assert len(await asyncio.gather(*texts)) == 6


async def test_two_models_with_backlogs_share_by_tokens(models):
    both = models(1)
    first, second = both.add("first"), both.add("second")
    for gate in both.gates.values():
        gate.set()
    texts = [*first.submit([[1]] * 60), *second.submit([[1] * GROUP_TOKENS] * 15)]
    both.threads.start()

    await asyncio.gather(*texts)

    half = both.ran[: len(both.ran) // 2]
    tokens = {name: sum(size for ran, size in half if ran == name) for name in both.gates}
    assert abs(tokens["first"] - tokens["second"]) <= 2 * GROUP_TOKENS


async def test_there_is_no_spare_thread_while_another_model_uses_it(models):
    both = models(1)
    large = both.add("large")
    both.add("small")
    both.threads.start()
    assert both.threads.has_spare()
    text = large.submit([[1]])
    await both.runs("large")

    assert not both.threads.has_spare()
    both.gates["large"].set()
    await asyncio.gather(*text)


async def test_the_backlog_of_another_model_halves_what_may_wait_and_does_no_more(models):
    def accepted(batcher: Batcher) -> int:
        for number in range(1_000):
            try:
                batcher.submit([[1] * 16])
            except Overloaded:
                return number
        raise AssertionError("it is never refused")

    both = models(1)
    alone = accepted(both.add("alone", max_wait_s=0.5))
    both = models(1)
    both.add("large").submit([[1] * GROUP_TOKENS] * 10_000)

    beside = accepted(both.add("small", max_wait_s=0.5))

    assert alone / 2 - 1 <= beside <= alone / 2 + 1


async def test_stopping_finishes_the_texts_of_all_models(models):
    both = models(2)
    texts = [future for name in ("a", "b", "c") for future in both.add(name).submit([[1]] * 20)]
    both.threads.start()
    for gate in both.gates.values():
        gate.set()

    await asyncio.to_thread(both.threads.stop)

    assert len(await asyncio.gather(*texts)) == 60


async def test_a_group_is_alone_only_while_no_other_runs_or_waits(models):
    both = models(3)
    large, small = both.add("large"), both.add("small")
    texts = [*large.submit([[1]]), *small.submit([[1] * 2])]
    both.threads.start()
    for name in both.gates:
        await both.runs(name)
    texts += small.submit([[1] * 3])
    await both.runs("small")
    assert not both.alone
    for gate in both.gates.values():
        gate.set()
    await asyncio.gather(*texts)
    both.alone.clear()

    for _ in range(2):  # the first groups of one length take turns: this one on one core,
        await asyncio.gather(*small.submit([[1] * 4]))  # and this on all
    assert both.alone == [4]


async def test_each_of_texts_that_are_asked_one_by_one_is_alone(models, monkeypatch):
    monkeypatch.setattr(Spread, "is_worth_it", lambda spread, tokens: True)
    one = models(3)
    model = one.add("model")
    one.gates["model"].set()
    one.threads.start()

    for _ in range(500):
        await asyncio.gather(*model.submit([[1]]))

    assert len(one.alone) == 500
