"""The models that this process infers, loaded, warmed up and measured."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.pairs import PairTokenizer
from cacheproxy.inference.queue import TextQueue, Vector
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.probes.probe import Probe
from cacheproxy.records import is_usable
from cacheproxy.routes.scores import is_score
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_WARM_UP_TOKENS = (3, 16, 64, 256)
"""Text lengths, tokens, that are run once as warm-up before the first request."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model in this process; its batcher shares the threads with the other models'."""

    installed: InstalledModel
    tokenizer: Tokenizer
    batcher: Batcher
    probe: Probe

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.installed.name, *self.installed.aliases)


@dataclass(frozen=True, slots=True)
class LocalReranker:
    """A reranker in this process; its batcher shares the threads, too."""

    installed: InstalledModel
    tokenizer: PairTokenizer
    batcher: Batcher

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.installed.name, *self.installed.aliases)


def load_models(
    settings: Settings,
    all_installed: Sequence[InstalledModel],
    threads: InferenceThreads,
    metrics: Metrics,
) -> tuple[LocalModel, ...]:
    """Return the models that embed, ready to infer once the threads run.

    Says what memory each one takes.

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: another model is the probe, and is not installed.
    """
    return tuple(
        LocalModel(
            installed,
            Tokenizer(installed.tokenizer_json, installed.max_tokens),
            _load(settings, installed, threads, metrics, is_usable),
            make_probe(settings, installed),
        )
        for installed in all_installed
        if installed.kind == "embeddings"
    )


def load_rerankers(
    settings: Settings,
    all_installed: Sequence[InstalledModel],
    threads: InferenceThreads,
    metrics: Metrics,
) -> tuple[LocalReranker, ...]:
    """Return the rerankers, as `load_models` does; raises `ConfigError`."""
    return tuple(
        LocalReranker(
            installed,
            PairTokenizer(installed.tokenizer_json, installed.max_tokens, installed.segment_offset),
            _load(settings, installed, threads, metrics, is_score),
        )
        for installed in all_installed
        if installed.kind == "rerank"
    )


def _load(
    settings: Settings,
    installed: InstalledModel,
    threads: InferenceThreads,
    metrics: Metrics,
    is_usable: Callable[[Vector], bool],
) -> Batcher:
    batching = settings.batching
    before = _resident_bytes()
    encoder = OnnxEncoder(installed.graph, device=installed.device)
    batcher = Batcher(
        encoder.encode,
        model=installed.name,
        threads=threads,
        queue=TextQueue(
            window_s=batching.window_ms / 1000,
            max_group_tokens=batching.max_tokens,
            shared_group_tokens=batching.shared_tokens,
            timeout_s=batching.timeout_s,
            workers=batching.threads,
        ),
        max_wait_s=batching.max_wait_ms / 1000,
        metrics=metrics,
        is_usable=is_usable,
    )
    for tokens in _WARM_UP_TOKENS:
        encoder.encode(np.ones((1, min(tokens, installed.max_tokens)), np.int64))
    taken = max(0, _resident_bytes() - before)
    metrics.model_memory.labels(installed.name).set(taken)
    logger.info(
        "model %s loaded: %.0f MB of memory, %s, at most %d tokens",
        installed.name,
        taken / 1e6,
        f"{installed.dimensions} dimensions" if installed.kind == "embeddings" else "reranker",
        installed.max_tokens,
    )
    return batcher


def _resident_bytes() -> int:
    """Return this process's resident memory; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
