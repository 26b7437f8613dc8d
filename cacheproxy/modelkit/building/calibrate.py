"""The encoder's operations between its matrix products, and the token vectors that pass through.

Quantisation processes the encoder site by site with the token vectors of all calibration texts, as
produced by the layers quantised so far: these are the inputs that a site gets in use. Such a stream
is flat, float32 [all tokens, width], so that a product is one matrix multiplication; only attention
uses the boundaries of texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cacheproxy.modelkit.building.weights import Floats, Norm, Rotary


@dataclass(frozen=True)
class TokenGroups:
    """Texts, or pairs of texts, by length: int64 [n, tokens] ids each."""

    ids: Sequence[NDArray[np.int64]]

    def embed(
        self, words: Floats, offsets: Floats, norm: Norm, second: Floats | None = None
    ) -> Floats:
        """Return the stream that enters the first layer; `second` is as in `Encoder`."""
        parts = [words[ids % len(words)] + offsets[: ids.shape[1]] for ids in self.ids]
        if second is not None:
            for part, ids in zip(parts, self.ids, strict=True):
                part[ids >= len(words)] += second
        return normalize(np.concatenate([part.reshape(-1, words.shape[1]) for part in parts]), norm)

    def rotate(self, x: Floats, rotary: Rotary, heads: int) -> Floats:
        """Return the stream of a query or a key, rotated by the position of each token."""
        positions = np.concatenate([np.tile(np.arange(ids.shape[1]), len(ids)) for ids in self.ids])
        cosines, sines = rotary.cosines[positions, None], rotary.sines[positions, None]
        first, second = np.split(x.reshape(len(x), heads, -1), 2, axis=2)
        rotated = [first * cosines - second * sines, second * cosines + first * sines]
        return np.concatenate(rotated, axis=2).reshape(x.shape)

    def attend(self, query: Floats, key: Floats, value: Floats, heads: int) -> Floats:
        """Return the attention's context, a stream, for the streams of query, key and value."""
        context = np.empty_like(query)
        run = _attention(heads)
        start = 0
        for ids in self.ids:
            end = start + ids.size
            texts = [part[start:end].reshape(*ids.shape, -1) for part in (query, key, value)]
            (result,) = run.run(None, dict(zip(("query", "key", "value"), texts, strict=True)))
            context[start:end] = result.reshape(end - start, -1)
            start = end
        return context


def normalize(x: Floats, norm: Norm) -> Floats:
    """Return the layer normalisation of each row."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    result: Floats = centred / np.sqrt(variance + norm.epsilon) * norm.scale + norm.shift
    return result


def activate(up: Floats, gate: Floats | None = None) -> Floats:
    """Return up silu(gate), or gelu(up) where there is no gate, by the kernels that serve."""
    if gate is None:
        (result,) = _session("Gelu", ["x"]).run(None, {"x": up})
    else:
        (result,) = _session("QuickGelu", ["x"], alpha=1.0).run(None, {"x": gate})
        result *= up
    return np.asarray(result)


def _attention(heads: int) -> ort.InferenceSession:
    return _session("MultiHeadAttention", ["query", "key", "value"], num_heads=heads)


def _session(op: str, inputs: list[str], **attributes: Any) -> ort.InferenceSession:
    node = helper.make_node(op, inputs, ["result"], domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        op,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    # NumPy computes between two operators: spinning threads would take its cores meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
