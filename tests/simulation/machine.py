"""The simulated machine that runs the model, and the model: texts of letters, vectors by topic.

Every inference gives a vector of its own, which names it: whatever is served can be traced to the
inference that made it, to the request that asked for it, and to the moment at which it began.
"""

from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as TokenizerBuilder
from tokenizers import models, normalizers, pre_tokenizers, processors

from cacheproxy.errors import InferenceFailed, Overloaded, Unavailable
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel, InstalledProbes
from cacheproxy.modelkit.manifest import Prefixes
from cacheproxy.probes.static import StaticProbe
from tests.simulation.world import SimLoop, World

WORDS = ["[CLS]", "[SEP]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
TRAPS = {WORDS.index(word) for word in "xyz"}
"""A text with one of these means something else than a text that differs in it alone."""

DIMENSIONS = 8
_SERIAL = 2.0**-18


@dataclass(frozen=True)
class Asker:
    """On whose behalf something is inferred."""

    request: int
    namespace: Any
    no_store: bool = False
    ttl_s: float | None = None
    tags: tuple[str, ...] = ()
    is_check: bool = False


asker: ContextVar[Asker | None] = ContextVar("asker", default=None)


@dataclass(eq=False)
class Inference:
    """One call of the model for one text; times are the world's, NaN while it is not done."""

    serial: int
    ids: tuple[int, ...]
    by: Asker | None
    loop: SimLoop
    began: float
    ended: float = float("nan")


def _tokenizer_json() -> bytes:
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    builder = TokenizerBuilder(models.WordLevel(vocabulary, unk_token="[UNK]"))
    builder.normalizer = normalizers.Lowercase()
    builder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    builder.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return builder.to_str().encode()


PROBE = np.eye(len(WORDS), dtype=np.float16)
PROBE[:3] = 0

INSTALLED = InstalledModel(
    name="m",
    aliases=(),
    kind="embeddings",
    fingerprint="f" * 64,
    dimensions=DIMENSIONS,
    matryoshka=(),
    max_tokens=32,
    pooling="mean",
    prefixes=Prefixes(),
    vocabulary_size=len(WORDS),
    segment_offset=0,
    graph=Path("none"),
    tokenizer_json=_tokenizer_json(),
    device="cpu",
    probes=InstalledProbes(PROBE, Path("none")),
)


class _Remembering(Tokenizer):
    """The real tokenizer, which is asked once for each text: there are few."""

    def __init__(self, installed: InstalledModel) -> None:
        super().__init__(installed.tokenizer_json, installed.max_tokens)
        self._ids = lru_cache(10_000)(lambda text: super(_Remembering, self).encode([text])[0])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(self._ids(text)) for text in texts]


TOKENIZER = _Remembering(INSTALLED)


class _RememberingProbe(StaticProbe):
    """The real probe, of which each text is asked once."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__(table)
        self._rows: dict[tuple[int, ...], np.ndarray] = {}

    async def encode(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        texts = [tuple(ids) for ids in texts]
        if unknown := [ids for ids in texts if ids not in self._rows]:
            if len(self._rows) > 10_000:
                self._rows.clear()
                unknown = texts
            self._rows.update(zip(unknown, await super().encode(unknown), strict=True))
        return np.stack([self._rows[ids] for ids in texts])


STATIC_PROBE = _RememberingProbe(PROBE)


def true_vector(ids: Sequence[int], serial: int) -> np.ndarray:
    """Return float32 [DIMENSIONS], of unit length: the topic's, and a trace of the serial."""
    vector = np.zeros(DIMENSIONS, np.float32)
    topic = ids[1] if len(ids) > 1 else 0
    if TRAPS.intersection(ids[2:]):
        topic += 1
    vector[topic % (DIMENSIONS - 1)] = 1.0
    vector[-1] = serial * _SERIAL
    return vector / np.float32(np.sqrt(vector @ vector))


@dataclass
class Machine:
    """The model on all servers' machines.

    Attributes:
        inferences: all that was ever inferred, by the bytes of its vector.
        slow_s: how much longer a text takes at the moment, at most.
        refusing: servers that refuse work, as if their queues were full.
        failing: the share of texts whose inference fails.
    """

    world: World
    inferences: dict[bytes, Inference] = field(default_factory=dict)
    slow_s: float = 0.0
    refusing: set[SimLoop] = field(default_factory=set)
    failing: float = 0.0
    serial: int = 0

    def of_stored(self, fields: dict[bytes, bytes]) -> Inference | None:
        """Return the inference whose result an entry in Redis holds, if it is an embedding's."""
        return self.inferences.get(fields[b"record"][-4 - 4 * DIMENSIONS : -4])


class SimBatcher:
    """Stands for `Batcher`: one simulated thread, a text at a time."""

    def __init__(self, machine: Machine, loop: SimLoop) -> None:
        self._machine, self._loop, self._world = machine, loop, machine.world
        self._waiting: deque[tuple[Inference, Any]] = deque()
        self._is_busy = False
        self._is_stopped = False

    def start(self) -> None:
        """Begin to accept work; this stands for the threads of all models, too."""

    def stop(self) -> None:
        """Refuse work; what is queued is dropped."""
        self._is_stopped = True

    def has_spare(self) -> bool:
        return not self._is_busy and not self._waiting

    @property
    def is_overloaded(self) -> bool:
        return len(self._waiting) > 16

    def begin(self, tokens: int) -> object:
        if self._is_stopped:
            raise Unavailable("the server is stopping", retry_after_s=1)
        if self._loop in self._machine.refusing or len(self._waiting) > 64:
            raise Overloaded("the queue is full", code="queue_full", retry_after_s=1)
        return object()

    def end(self, reservation: object) -> None:
        """Nothing is reserved here."""

    def submit(self, texts: Sequence[Sequence[int]], reservation: object = None) -> list[Any]:
        if reservation is None:
            self.begin(sum(map(len, texts)))
        if self._is_stopped:
            raise Unavailable("the server is stopping", retry_after_s=1)
        futures = []
        for ids in texts:
            self._machine.serial += 1
            by, world = asker.get(), self._world
            one = Inference(self._machine.serial, tuple(ids), by, self._loop, world.now)
            future = self._loop.create_future()
            if by is not None and by.is_check:
                future.add_done_callback(self._watch_check)
            self._waiting.append((one, future))
            futures.append(future)
        self._next()
        return futures

    def _watch_check(self, future: Any) -> None:
        if future.cancelled() and not self._is_stopped and not self._loop.is_stopping:
            self._world.blame("check", f"{self._loop.name}: a background check was cancelled")

    def _next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        chance = self._world.chance.random
        seconds = 0.001 + 0.002 * chance()
        if self._machine.slow_s:
            seconds += chance() * self._machine.slow_s
        one, future = self._waiting.popleft()
        self._is_busy = True
        self._world.call_in(0.0 if future.cancelled() else seconds, self._done, one, future)

    def _done(self, one: Inference, future: Any) -> None:
        self._is_busy = False
        if not self._loop.is_dead and not future.done():
            if self._machine.failing and self._world.chance.random() < self._machine.failing:
                future.set_exception(InferenceFailed("it failed", code="inference_failed"))
            else:
                vector = true_vector(one.ids, one.serial)
                one.ended = self._world.now
                self._machine.inferences[vector.tobytes()] = one
                future.set_result(vector)
        self._next()
