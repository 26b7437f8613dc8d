"""Embeds in this process: the server's own queue and threads, without a server around them."""

import math
import os
from collections.abc import Sequence

import numpy as np

from cacheproxy.errors import InferenceFailed
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.inputs import Role
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.ingest.rows import Vector
from cacheproxy.ingest.stream import Measured, Refused
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.telemetry.metrics import Metrics

_WINDOW_S = 1.0
"""Nobody waits for the first text here, so that the fullest group may always be next."""

_GROUP_TOKENS = {"cpu": 256, "cuda": 16_384}
"""As the server's `batch.max_tokens`."""


class LocalEmbedder:
    """An installed model; equal texts of a request are embedded once."""

    def __init__(
        self,
        installed: InstalledModel,
        *,
        role: Role | None = None,
        threads: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            installed: embeds.
            role: what the texts are; the model's prefix for it is put in front of each.
            threads: groups at a time; default: one for each core.

        Raises:
            ConfigError: ONNX Runtime cannot use the device.
        """
        self.model = installed.name
        self.fingerprint = installed.fingerprint
        prefixes = {"query": installed.prefixes.query, "document": installed.prefixes.document}
        self._prefix = prefixes.get(role or "", "")
        self._tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
        count = threads or len(os.sched_getaffinity(0))
        group_tokens = _GROUP_TOKENS[installed.device]
        self._threads = InferenceThreads(count)
        self._batcher = Batcher(
            OnnxEncoder(installed.graph, device=installed.device).encode,
            model=installed.name,
            threads=self._threads,
            queue=TextQueue(
                window_s=_WINDOW_S,
                max_group_tokens=group_tokens,
                shared_group_tokens=group_tokens,
                timeout_s=math.inf,
                workers=count,
            ),
            max_wait_s=math.inf,
            metrics=Metrics(),
        )

    async def __aenter__(self) -> "LocalEmbedder":
        self._threads.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.stop()

    def measure(self, texts: Sequence[str]) -> list[Measured]:
        """Return the token ids of each text, cut to what the model reads."""
        prefixed = [self._prefix + text for text in texts]
        return [Measured(tuple(ids), len(ids)) for ids in self._tokenizer.encode(prefixed)]

    async def embed(self, texts: Sequence[Measured]) -> list[Vector | Refused]:
        """Return a vector for each text, or why the model gave none."""
        places = {given: i for i, given in enumerate(dict.fromkeys(text.given for text in texts))}
        futures = self._batcher.submit(list(places))
        found: list[Vector | Refused] = []
        try:
            for future in futures:
                try:
                    found.append(np.asarray(await future, np.float32))
                except InferenceFailed as error:
                    found.append(Refused(error.message))
        finally:
            for future in futures:
                future.cancel()
        return [found[places[text.given]] for text in texts]
