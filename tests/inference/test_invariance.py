"""A vector is a function of its token ids alone, whatever the engine does beside it."""

import asyncio

import numpy as np
import pytest

from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.session import OnnxEncoder, load_spread
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.telemetry.metrics import Metrics

COMPOSITIONS = 500
"""For each number of threads."""


def short_texts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = np.minimum(3 + rng.geometric(0.12, count), 80)
    return [[101, *rng.integers(1_000, 30_000, length - 2).tolist(), 102] for length in lengths]


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_text_has_the_same_bits_in_every_composition(installed, threads):
    encoder = OnnxEncoder(installed.graph)
    spread = load_spread(installed.graph, device="cpu", cores=threads)
    assert (spread is None) == (threads == 1)
    texts = short_texts(60)
    alone = [encoder.encode(np.array([ids]))[0].tobytes() for ids in texts]
    queue = TextQueue(
        window_s=0.005, max_group_tokens=256, shared_group_tokens=64, timeout_s=600, workers=threads
    )
    pool = InferenceThreads(threads)
    spread_groups = 0

    def encode_alone(ids):
        nonlocal spread_groups
        spread_groups += 1
        return spread.encode(ids)

    batcher = Batcher(
        encoder.encode,
        encode_alone=spread and encode_alone,
        model=installed.name,
        threads=pool,
        queue=queue,
        max_wait_s=600,
        metrics=Metrics(),
    )
    rng = np.random.default_rng(threads)
    pool.start()

    async def compose() -> None:
        chosen = rng.integers(0, len(texts), rng.integers(1, 30))
        vectors = await asyncio.gather(*batcher.submit([texts[i] for i in chosen]))
        for i, vector in zip(chosen, vectors, strict=True):
            assert vector.tobytes() == alone[i]

    # One text at a time: those that are alone may take all cores.
    for ids, expected in zip(texts, alone, strict=True):
        (vector,) = await asyncio.gather(*batcher.submit([ids]))
        assert vector.tobytes() == expected
    assert bool(spread_groups) == (threads > 1)
    # Several requests at once, so that groups are also made of texts of different requests.
    for _ in range(COMPOSITIONS // 5):
        await asyncio.gather(*(compose() for _ in range(5)))
    await asyncio.to_thread(pool.stop)
