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
from cacheproxy.inference.session import OnnxEncoder, load_spread
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.probes.probe import Probe
from cacheproxy.records import is_usable
from cacheproxy.routes.scores import is_score
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.tenants import Tenants
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_WARM_UP_TOKENS = (3, 16, 64, 256)
"""Text lengths, tokens, that are run once as warm-up before the first request."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model in this process; its batcher shares the threads with the other models'.

    `memory_bytes` is what loading it took.
    """

    installed: InstalledModel
    tokenizer: Tokenizer
    batcher: Batcher
    probe: Probe
    memory_bytes: int

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
    memory_bytes: int

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

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: another model is the probe, and is not installed.
    """

    def load(installed: InstalledModel) -> LocalModel:
        before = _resident_bytes()
        tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
        batcher = _make_batcher(settings, installed, threads, metrics, is_usable)
        probe = make_probe(settings, installed)
        taken = _memory_since(before, installed, metrics)
        return LocalModel(installed, tokenizer, batcher, probe, taken)

    return tuple(load(each) for each in all_installed if each.kind == "embeddings")


def load_rerankers(
    settings: Settings,
    all_installed: Sequence[InstalledModel],
    threads: InferenceThreads,
    metrics: Metrics,
) -> tuple[LocalReranker, ...]:
    """Return the rerankers, as `load_models` does; raises `ConfigError`."""

    def load(installed: InstalledModel) -> LocalReranker:
        before = _resident_bytes()
        tokenizer = PairTokenizer(
            installed.tokenizer_json, installed.max_tokens, installed.segment_offset
        )
        batcher = _make_batcher(settings, installed, threads, metrics, is_score)
        taken = _memory_since(before, installed, metrics)
        return LocalReranker(installed, tokenizer, batcher, taken)

    return tuple(load(each) for each in all_installed if each.kind == "rerank")


def log_loaded(model: LocalModel | LocalReranker) -> None:
    """Say what is served, and what it takes."""
    installed = model.installed
    logger.info(
        "model %s: %.0f MB of memory, %s, at most %d tokens",
        installed.name,
        model.memory_bytes / 1e6,
        f"{installed.dimensions} dimensions" if installed.kind == "embeddings" else "reranker",
        installed.max_tokens,
    )


def _make_batcher(
    settings: Settings,
    installed: InstalledModel,
    threads: InferenceThreads,
    metrics: Metrics,
    is_usable: Callable[[Vector], bool],
) -> Batcher:
    """Return the batcher of a model that has been warmed up."""
    batching = settings.batching
    encoder = OnnxEncoder(installed.graph, device=installed.device)
    spread = load_spread(installed.graph, device=installed.device, cores=batching.threads)
    for tokens in _WARM_UP_TOKENS:
        encoder.encode(np.ones((1, min(tokens, installed.max_tokens)), np.int64))
    return Batcher(
        encoder.encode,
        encode_alone=None if spread is None else spread.encode,
        model=installed.name,
        threads=threads,
        queue=TextQueue(
            window_s=batching.window_ms / 1000,
            max_group_tokens=batching.max_tokens,
            shared_group_tokens=batching.shared_tokens,
            timeout_s=batching.timeout_s,
            workers=batching.threads,
            terms=Tenants(settings.tenants).terms,
        ),
        max_wait_s=batching.max_wait_ms / 1000,
        metrics=metrics,
        is_usable=is_usable,
    )


def _memory_since(before: int, installed: InstalledModel, metrics: Metrics) -> int:
    """Return by how many bytes this process has grown, and show it."""
    taken = max(0, _resident_bytes() - before)
    metrics.model_memory.labels(installed.name).set(taken)
    return taken


def _resident_bytes() -> int:
    """Return this process's resident memory; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
