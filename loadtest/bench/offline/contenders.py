"""The engines that are compared: each embeds texts on all cores, tokenising included."""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_dynamic
from tokenizers import Tokenizer as RawTokenizer

from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.session import OnnxEncoder, load_spread
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.building.weights import Encoder, read_encoder
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.manifest import load_manifest
from cacheproxy.telemetry.metrics import Metrics

from .plain_bert import plain_graph

Vectors = NDArray[np.float32]

OURS, BASELINE, DYNAMIC = "cacheproxy", "ort fp32", "ort quantize_dynamic"

_BATCH = 32
"""Texts in a padded batch, sorted by length, as in sentence-transformers and most servers."""


class Contender(Protocol):
    """An engine; both methods return float32 [texts, dimensions]."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""

    def embed_ids(self, ids: NDArray[np.int64]) -> Vectors:
        """Embed token ids, int64 [texts, tokens], without padding."""


class Ours:
    """The tokenizer, queue and batcher of the server, without HTTP in front of them."""

    def __init__(self, model: InstalledModel, *, threads: int, max_tokens: int) -> None:
        self._tokenizer = Tokenizer(model.tokenizer_json, model.max_tokens)
        queue = TextQueue(
            window_s=0.005,
            max_group_tokens=max_tokens,
            shared_group_tokens=64,
            timeout_s=600,
            workers=threads,
        )
        self._threads = InferenceThreads(threads)
        spread = load_spread(model.graph, device=model.device, cores=threads)
        self._batcher = Batcher(
            OnnxEncoder(model.graph).encode,
            encode_alone=None if spread is None else spread.encode,
            model=model.name,
            threads=self._threads,
            queue=queue,
            max_wait_s=600,
            metrics=Metrics(),
        )
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self._threads.start()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        return self._submit(self._tokenizer.encode(texts))

    def embed_ids(self, ids: NDArray[np.int64]) -> Vectors:
        """Embed token ids int64 [texts, tokens]."""
        return self._submit(ids.tolist())

    def _submit(self, ids: Sequence[Sequence[int]]) -> Vectors:
        async def answer() -> list[Vectors]:
            return await asyncio.gather(*self._batcher.submit(ids))

        return np.stack(self._loop.run_until_complete(answer()))


class PaddedOnnx:
    """A graph with a mask, in ONNX Runtime with its defaults, fed with padded batches."""

    def __init__(self, graph: Path, tokenizer_json: bytes, *, max_tokens: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = RawTokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        parts = []
        for start in range(0, len(order), _BATCH):
            batch = [texts[i] for i in order[start : start + _BATCH]]
            encodings = self._tokenizer.encode_batch(batch)
            ids = np.array([encoding.ids for encoding in encodings])
            mask = np.array([encoding.attention_mask for encoding in encodings])
            parts.append(self._run(ids, mask))
        result: Vectors = np.concatenate(parts)[np.argsort(order)]
        return result

    def embed_ids(self, ids: NDArray[np.int64]) -> Vectors:
        """Embed token ids int64 [texts, tokens]."""
        return self._run(ids, np.ones_like(ids))

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Vectors:
        (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors)


class SentenceTransformers:
    """The library itself, with PyTorch on the CPU."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(model, device="cpu")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        return np.asarray(self._model.encode(list(texts), batch_size=_BATCH), np.float32)

    def embed_ids(self, ids: NDArray[np.int64]) -> Vectors:
        """Embed token ids int64 [texts, tokens]."""
        import torch

        with torch.no_grad():
            inputs = torch.from_numpy(ids)
            given = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
            vectors: Vectors = self._model(given)["sentence_embedding"].numpy()
            return vectors


def make_contenders(
    model: InstalledModel, home: Path, *, threads: int, max_tokens: int, peer: str | None
) -> dict[str, Contender]:
    """Return the engines by name; `peer` is a model name or folder for sentence-transformers."""
    with tempfile.TemporaryDirectory() as folder:
        float_file, dynamic_file = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        float_file.write_bytes(plain_graph(float_encoder(model, home)).SerializeToString())
        quantize_dynamic(float_file, dynamic_file)
        contenders: dict[str, Contender] = {
            name: PaddedOnnx(file, model.tokenizer_json, max_tokens=model.max_tokens)
            for name, file in ((BASELINE, float_file), (DYNAMIC, dynamic_file))
        }
    contenders[OURS] = Ours(model, threads=threads, max_tokens=max_tokens)
    if peer is not None:
        contenders["sentence-transformers"] = SentenceTransformers(peer)
    return contenders


def float_encoder(model: InstalledModel, home: Path) -> Encoder:
    """Return the weights that the model was built from, which its build keeps under `home`."""
    weights = home / "sources" / model.name / "model.safetensors"
    return read_encoder(weights, load_manifest(model.name))
