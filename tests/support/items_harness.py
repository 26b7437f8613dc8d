"""An items route over real tiers, with a small tokenizer, a "model" of histograms, and a store that
can be made to fail."""

import asyncio
from functools import partial

import numpy as np
from faulty import FaultyStore
from tokenizers import Tokenizer as TokenizerBuilder
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.engine import LocalEngine
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import Namespace
from cacheproxy.probes.static import StaticProbe
from cacheproxy.records import pack, unpack
from cacheproxy.routes.exchange import Control, ItemsRequest, ModelInfo
from cacheproxy.routes.form import EMBEDDINGS
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.stores.purges import Scope
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.fixed import FixedThreshold
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack

WORDS = ["[CLS]", "[SEP]", "[UNK]", "poison", *"abcdefghijklmnopqrstuvwxyz"]
DIMENSIONS = 8
NAMESPACE = Namespace("default", "default")


def small_tokenizer() -> Tokenizer:
    """An uncased tokenizer of single-letter words."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    builder = TokenizerBuilder(models.WordLevel(vocabulary, unk_token="[UNK]"))
    builder.normalizer = normalizers.Lowercase()
    builder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    builder.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    builder.decoder = decoders.WordPiece()
    return Tokenizer(builder.to_str().encode(), max_tokens=16)


def encode(ids):
    """A "model": the direction of a text is the histogram of its ids."""
    if (ids == WORDS.index("poison")).any():
        raise RuntimeError("poisoned")
    vectors = np.zeros((len(ids), DIMENSIONS), np.float32)
    for row, text in zip(vectors, ids, strict=True):
        for token in text:
            row[token % DIMENSIONS] += 1 + token
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Harness:
    """A route with its parts at hand."""

    def __init__(
        self,
        *,
        hot_bytes=1_000_000,
        threshold=None,
        controller=None,
        deadline_s=5.0,
        queue_entries=100,
        most_checks=10,
        max_wait_s=10.0,
    ):
        self.metrics = Metrics()
        self.store = FaultyStore()
        self.inferences = 0
        self.hold = None  # an event that inference waits for
        self.tokenizer = small_tokenizer()
        self.guard = guard = StoreGuard(self.store, deadline_s=deadline_s, metrics=self.metrics)
        self.writeback = WriteBack(self.store, max_entries=queue_entries, metrics=self.metrics)
        self.hot = HotTier(hot_bytes, self.store.purges)
        self.threads = InferenceThreads(1)
        self.batcher = Batcher(
            self._encode,
            model="m",
            threads=self.threads,
            queue=TextQueue(
                window_s=0.005, max_group_tokens=64, shared_group_tokens=64, timeout_s=60, workers=2
            ),
            max_wait_s=max_wait_s,
            metrics=self.metrics,
        )
        self.spare_work = SpareWork(self.threads.has_spare, most=most_checks, metrics=self.metrics)
        reader = RecordReader(partial(unpack, dimensions=DIMENSIONS), self.metrics)
        purges = self.store.purges
        self.route = ItemsRoute(
            ModelInfo("m", (), "f" * 64, DIMENSIONS),
            EMBEDDINGS,
            tiers=KeyedTiers(self.hot, ExactTier(guard, self.writeback, reader), purges),
            semantic=SemanticTier(
                guard,
                StaticProbe(np.eye(len(WORDS), dtype=np.float16)),
                controller
                or FixedThreshold(threshold, min_similarity=0.95, model="m", metrics=self.metrics),
                fingerprint="f" * 64,
                reader=reader,
                min_tokens=4,
                model="m",
                metrics=self.metrics,
            ),
            engine=LocalEngine(self.batcher, self.tokenizer),
            keeper=Keeper(self.hot, self.writeback, pack),
            purges=purges,
            spare_work=self.spare_work,
            tokenizing=JobThread("tokenize"),
            lifetimes=Lifetimes(3_600, by_namespace_id={}, jitter=0.1),
            metrics=self.metrics,
        )

    def _encode(self, ids):
        self.inferences += len(ids)
        if self.hold is not None:
            self.hold.wait(10)
        return encode(ids)

    async def embed(self, *inputs, **control):
        return await self.route.serve(ItemsRequest(NAMESPACE, list(inputs), Control(**control)))

    async def outcomes(self, *inputs, **control):
        return [served.outcome for served in (await self.embed(*inputs, **control)).served]

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"cacheproxy_{name}", labels)

    def joined(self, key):
        """Return whether a request has joined a flight that another began."""
        flight = self.route._inference._flights.get(NAMESPACE.id, key)
        return flight is not None and flight._waiters > 1

    async def settled(self):
        """Wait until everything that was queued has been written."""
        await asyncio.wait_for(self.writeback._idle.wait(), 10)


def key_of(harness, text):
    return harness.route.key_of(NAMESPACE.id, text)


def purged(harness):
    harness.store.purges.purged(Scope(NAMESPACE.id), harness.store.purges.generation + 1)
