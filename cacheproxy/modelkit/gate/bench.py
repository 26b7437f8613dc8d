"""Measures how fast an installed model is on this machine, and with how many threads.

Each thread runs its own groups on one core, as the server does while there are many of them. For
comparison, one group at a time is also spread over all cores, and one text over some.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.corpus import group_by_length, read_corpus, tokenize
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.manifest import models_folder
from cacheproxy.modelkit.progress import steps

GROUP_TOKENS = (64, 128, 256, 512, 1024)

_ROUNDS = 3
_LATENCY_RUNS = 30


@dataclass(frozen=True)
class Throughput:
    """The throughput of one setting, as the median of several rounds.

    Attributes:
        threads: number of groups run at the same time.
        cores_a_group: number of cores used by each group.
        group_tokens: maximum tokens in a group.
        texts_per_s, tokens_per_s: of texts in the mix of lengths that ships with the package.
    """

    threads: int
    cores_a_group: int
    group_tokens: int
    texts_per_s: float
    tokens_per_s: float


def measure_throughput(model: InstalledModel, cores: int) -> list[Throughput]:
    """Return the throughput of each setting on `cores` cores; takes a few seconds for each.

    Raises:
        ModelError: the shipped texts cannot be read.
    """
    corpus = read_corpus(models_folder())
    texts = corpus.calibration[::2]
    ids = group_by_length(tokenize(texts, model.tokenizer_json, model.max_tokens))
    tokens = sum(group.size for group in ids)
    settings = [(threads, 1, most) for threads in _thread_counts(cores) for most in GROUP_TOKENS]
    if cores > 1:
        settings.append((1, cores, max(GROUP_TOKENS)))
    found = []
    for threads, spread, most in steps(settings, "measuring", len(settings)):
        encoder = OnnxEncoder(model.graph, cores=spread)
        groups = sorted(_cut(ids, most), key=lambda group: -group.size)
        seconds = statistics.median(_time(encoder, groups, threads) for _ in range(_ROUNDS))
        found.append(Throughput(threads, spread, most, len(texts) / seconds, tokens / seconds))
    return found


def measure_latency(model: InstalledModel, cores: int) -> dict[int, dict[int, float]]:
    """Return the median seconds of one text, by its tokens and by the cores that it is spread over.

    The cores are powers of two, and `cores`.
    """
    counts = sorted({cores, *(2**power for power in range(cores.bit_length()))})
    encoders = {count: OnnxEncoder(model.graph, cores=count) for count in counts}
    rng = np.random.default_rng(0)
    latencies = {}
    for tokens in sorted({min(length, model.max_tokens) for length in (8, 16, 32, 64, 128, 256)}):
        ids = rng.integers(0, model.vocabulary_size, (1, tokens))
        latencies[tokens] = {
            count: statistics.median(_time(encoder, [ids], 1) for _ in range(_LATENCY_RUNS))
            for count, encoder in encoders.items()
        }
    return latencies


def _thread_counts(cores: int) -> list[int]:
    return sorted({1, max(1, cores // 2), cores})


def _cut(groups: Sequence[NDArray[np.int64]], most: int) -> Iterator[NDArray[np.int64]]:
    for group in groups:
        texts = max(1, most // group.shape[1])
        for start in range(0, len(group), texts):
            yield group[start : start + texts]


def _time(encoder: OnnxEncoder, groups: Sequence[NDArray[np.int64]], threads: int) -> float:
    started = time.perf_counter()
    if threads == 1:
        for group in groups:
            encoder.encode(group)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(encoder.encode, groups))
    return time.perf_counter() - started
