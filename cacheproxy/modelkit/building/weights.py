"""An encoder's weights, read from safetensors or ONNX into named arrays, whatever their file says.

Everything behind this file (graph, calibration, quantisation) sees only these classes, with
matrices laid out [inputs, outputs] as products use them. What PyTorch stores otherwise is turned
here, once; token type 0, the only one an embedding model sees, is folded into what is added to
words. The layers are counted by the tensors' names and their inner width is read from the shapes;
the rest stands in the manifest, so that a model's config.json, which says it again, is not needed.
A reranker's scores come from a head on the first token; it tells a query from a document by their
token types, if the model has two of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.building.exported import read_exported
from cacheproxy.modelkit.manifest import Manifest, Pooling

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias: weight float32 [inputs, outputs], bias float32 [outputs].

    A bias that the model lacks is zeros: quantised products need one anyway, to add back what
    smoothing takes away.
    """

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Norm:
    """A layer normalisation: scale and shift float32 [hidden], epsilon inside the root."""

    scale: Floats
    shift: Floats
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One encoder layer.

    With a gate, what `ffn_down` reads is SwiGLU, ffn_up(x) * silu(ffn_gate(x)) (Shazeer 2020, arXiv
    2002.05202); without, gelu(ffn_up(x)).
    """

    query: Linear
    key: Linear
    value: Linear
    attention_out: Linear
    attention_norm: Norm
    ffn_up: Linear
    ffn_gate: Linear | None
    ffn_down: Linear
    ffn_norm: Norm

    def linears(self, site: str) -> tuple[Linear, ...]:
        """Return the matrices that share a site's activation ("qkv", or the name of the first)."""
        if site == "qkv":
            return self.query, self.key, self.value
        if site == "ffn_up" and self.ffn_gate is not None:
            return self.ffn_up, self.ffn_gate
        linear: Linear = getattr(self, site)
        return (linear,)


@dataclass(frozen=True)
class Rotary:
    """Angles by which queries and keys are turned (RoFormer: Su et al. 2021, arXiv 2104.09864).

    At each position, channel i of a head turns with channel i + size / 2: cosines and sines float32
    [max_tokens, size / 2], where size is that of a head.
    """

    cosines: Floats
    sines: Floats


@dataclass(frozen=True)
class Head:
    """What turns a reranker's first token vector x into a score: out(tanh(dense(x)))."""

    dense: Linear
    out: Linear


@dataclass(frozen=True)
class Encoder:
    """An encoder from ids to one vector, or to one score.

    Attributes:
        words: float32 [vocabulary, hidden].
        offsets: added to words: float32 [max_tokens, hidden] by position, or [1, hidden] where
            positions enter by rotation only.
        norm: what follows.
        layers: in the order of computation.
        heads: of attention.
        rotary: how attention learns of positions, or None where offsets tell them.
        pooling: how token vectors become one vector.
        max_tokens: longest input.
        second: float32 [hidden], added to the tokens of a pair's second text, or None where both
            texts are treated alike. Such a token's id comes raised by the vocabulary's size.
        head: a reranker's, else None.
    """

    words: Floats
    offsets: Floats
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    rotary: Rotary | None
    pooling: Pooling
    max_tokens: int
    second: Floats | None = None
    head: Head | None = None


def read_encoder(path: Path, manifest: Manifest) -> Encoder:
    """Return the encoder in a file of safetensors, or of an exported ONNX graph.

    Raises:
        ModelError: weights are missing, or of another shape than the architecture and the manifest
            ask for.
    """
    if path.suffix == ".onnx":
        return encoder_from_tensors(read_exported(path), manifest)
    from safetensors.numpy import load_file

    return encoder_from_tensors(load_file(path), manifest)


def encoder_from_tensors(tensors: Mapping[str, NDArray[Any]], manifest: Manifest) -> Encoder:
    """Return the encoder in tensors named as those on the hub are for its architecture.

    Raises:
        ModelError: a tensor is missing, or of another shape than it must have.
    """
    read = _Reader(tensors, manifest.dimensions, manifest.encoder.epsilon)
    if manifest.architecture == "nomic-bert":
        return _read_nomic_bert(read, manifest)
    return _read_bert(read, manifest)


class _Reader:
    """Takes tensors by name and checks what shape they have; None in a shape takes any size."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], hidden: int, epsilon: float) -> None:
        self._tensors = tensors
        self._hidden = hidden
        self._epsilon = epsilon

    def tensor(self, name: str, *shape: int | None) -> Floats:
        if name not in self._tensors:
            raise ModelError(f"the weights lack {name}")
        tensor = self._tensors[name]
        pairs = zip(tensor.shape, shape, strict=False)
        if tensor.ndim != len(shape) or any(size not in (None, found) for found, size in pairs):
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(f"{name} is {tensor.shape}, not ({sizes})")
        return np.ascontiguousarray(tensor, dtype=np.float32)

    def linear(self, name: str, inputs: int, outputs: int | None) -> Linear:
        weight = np.ascontiguousarray(self.tensor(f"{name}.weight", outputs, inputs).T)
        return Linear(weight, self.tensor(f"{name}.bias", weight.shape[1]))

    def unbiased(self, name: str, inputs: int, outputs: int | None) -> Linear:
        return _unbiased(self.tensor(f"{name}.weight", outputs, inputs))

    def norm(self, name: str) -> Norm:
        scale, shift = (self.tensor(f"{name}.{part}", self._hidden) for part in ("weight", "bias"))
        return Norm(scale, shift, self._epsilon)

    def layers(self, prefix: str) -> range:
        """Return the numbers of the layers whose tensors are named `prefix`, number, dot, rest."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        numbers = [int(match[1]) for name in self._tensors if (match := pattern.match(name))]
        if not numbers:
            raise ModelError(f"the weights lack {prefix}0")
        return range(max(numbers) + 1)


def _unbiased(weight: Floats) -> Linear:
    """Return the linear of a weight as it is stored, float32 [outputs, inputs]."""
    return Linear(np.ascontiguousarray(weight.T), np.zeros(len(weight), np.float32))


def _rotary_tables(base: float, size: int, max_tokens: int) -> Rotary:
    """Return the angles for heads of that size."""
    # In float64: a float32 angle is off by as much as 5e-4 at position 8,191.
    speeds = np.float64(base) ** -(np.arange(0, size, 2) / size)
    angles = np.arange(max_tokens)[:, None] * speeds
    return Rotary(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))


_FIRST_POSITION = {"bert": 0, "xlm-roberta": 2}
"""RoBERTa counts positions from its padding's id, 1, plus 1."""

_BODY = {"bert": "bert.", "xlm-roberta": "roberta."}
"""What stands before the encoder's tensors in a file that also has a head."""


def _read_bert(read: _Reader, manifest: Manifest) -> Encoder:
    """Devlin et al. 2018, arXiv 1810.04805; names as the hub's "bert" and "roberta" have them.

    XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116) computes the same from other positions.
    """
    hidden, architecture = manifest.dimensions, manifest.architecture
    body = _BODY[architecture] if manifest.kind == "rerank" else ""

    def layer(name: str) -> Layer:
        up = read.linear(f"{name}.intermediate.dense", hidden, None)
        return Layer(
            query=read.linear(f"{name}.attention.self.query", hidden, hidden),
            key=read.linear(f"{name}.attention.self.key", hidden, hidden),
            value=read.linear(f"{name}.attention.self.value", hidden, hidden),
            attention_out=read.linear(f"{name}.attention.output.dense", hidden, hidden),
            attention_norm=read.norm(f"{name}.attention.output.LayerNorm"),
            ffn_up=up,
            ffn_gate=None,
            ffn_down=read.linear(f"{name}.output.dense", up.weight.shape[1], hidden),
            ffn_norm=read.norm(f"{name}.output.LayerNorm"),
        )

    positions = read.tensor(f"{body}embeddings.position_embeddings.weight", None, hidden)
    positions = positions[_FIRST_POSITION[architecture] :]
    if len(positions) < manifest.max_tokens:
        raise ModelError(
            f"{len(positions)} positions are fewer than the manifest's {manifest.max_tokens} tokens"
        )
    types = read.tensor(f"{body}embeddings.token_type_embeddings.weight", None, hidden)
    layers = f"{body}encoder.layer."
    is_reranker = manifest.kind == "rerank"
    return Encoder(
        words=read.tensor(f"{body}embeddings.word_embeddings.weight", None, hidden),
        offsets=positions[: manifest.max_tokens] + types[0],
        norm=read.norm(f"{body}embeddings.LayerNorm"),
        layers=tuple(layer(f"{layers}{i}") for i in read.layers(layers)),
        heads=manifest.encoder.heads,
        rotary=None,
        pooling=manifest.pooling,
        max_tokens=manifest.max_tokens,
        second=types[1] - types[0] if is_reranker and len(types) > 1 else None,
        head=_read_head(read, manifest) if is_reranker else None,
    )


def _read_head(read: _Reader, manifest: Manifest) -> Head:
    hidden = manifest.dimensions
    if manifest.architecture == "bert":
        dense, out = "bert.pooler.dense", "classifier"
    else:
        dense, out = "classifier.dense", "classifier.out_proj"
    return Head(read.linear(dense, hidden, hidden), read.linear(out, hidden, 1))


def _read_nomic_bert(read: _Reader, manifest: Manifest) -> Encoder:
    """Nussbaum et al. 2024, arXiv 2402.01613; names as in nomic-ai's repositories."""
    hidden, heads = manifest.dimensions, manifest.encoder.heads
    if manifest.encoder.rotary_base is None:
        raise ModelError("nomic-bert needs a rotary_base")

    def layer(name: str) -> Layer:
        qkv = read.tensor(f"{name}.attn.Wqkv.weight", 3 * hidden, hidden)
        query, key, value = (_unbiased(weight) for weight in np.split(qkv, 3))
        up = read.unbiased(f"{name}.mlp.fc11", hidden, None)
        inner = up.weight.shape[1]
        return Layer(
            query=query,
            key=key,
            value=value,
            attention_out=read.unbiased(f"{name}.attn.out_proj", hidden, hidden),
            attention_norm=read.norm(f"{name}.norm1"),
            ffn_up=up,
            ffn_gate=read.unbiased(f"{name}.mlp.fc12", hidden, inner),
            ffn_down=read.unbiased(f"{name}.mlp.fc2", inner, hidden),
            ffn_norm=read.norm(f"{name}.norm2"),
        )

    return Encoder(
        words=read.tensor("embeddings.word_embeddings.weight", None, hidden),
        offsets=read.tensor("embeddings.token_type_embeddings.weight", None, hidden)[:1],
        norm=read.norm("emb_ln"),
        layers=tuple(layer(f"encoder.layers.{i}") for i in read.layers("encoder.layers.")),
        heads=heads,
        rotary=_rotary_tables(manifest.encoder.rotary_base, hidden // heads, manifest.max_tokens),
        pooling=manifest.pooling,
        max_tokens=manifest.max_tokens,
    )
