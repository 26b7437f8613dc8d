"""Writes an encoder as one ONNX graph, from token ids of one length to unit vectors or scores.

`input_ids` int64 [batch, tokens] -> `embedding` float32 [batch, hidden], or, of a reranker, its
scores before any sigmoid, float32 [batch, 1]. There is no mask and no padding: the batcher groups
texts by exact length. So attention always takes one path (the flash kernel, which ONNX Runtime uses
only without a mask), and a vector never depends on its batch-mates. Mean pooling is a product with
a row of ones: unlike ReduceSum and ReduceMean, its order of summation does not change with the
batch size (measured bitwise, batches 1 to 64, lengths 3 to 256). For the same reason a reranker's
head has its matrices on the left: each text has a product of its own, [hidden, hidden] by
[hidden, 1], whatever the batch.
The same code writes the float graph and the INT8 graph of every architecture; the graphs of one
model differ only in their products.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cacheproxy.modelkit.building.quantized import QuantizedEncoder, QuantizedLayer, Site
from cacheproxy.modelkit.building.weights import (
    Encoder,
    Floats,
    Head,
    Layer,
    Linear,
    Norm,
    Rotary,
)

_OPSET = 20
_IR_VERSION = 10
_MICROSOFT = "com.microsoft"


def float_graph(encoder: Encoder) -> bytes:
    """Return the float32 model, against which the INT8 model is measured."""
    return _write(encoder, _FloatProducts(encoder))


def half_graph(encoder: Encoder) -> bytes:
    """Return the float16 model, for GPUs: norms, residuals and pooling stay in float32."""
    return _write(encoder, _HalfProducts(encoder))


def int8_graph(encoder: QuantizedEncoder) -> bytes:
    """Return the INT8 model."""
    return _write(encoder, _Int8Products(encoder))


def features_graph(encoder: Encoder | QuantizedEncoder) -> bytes:
    """Return the model that computes a shallow probe's features, float32 [batch, features].

    They are the mean, the maximum and the minimum over the tokens of the first layer's input, and
    of its output; `features_of` gives their number.
    """
    writer = _Writer()
    features = _write_features(writer, encoder)
    return writer.model("input_ids", features, features_of(encoder))


def shallow_graph(encoder: Encoder | QuantizedEncoder, weight: Floats, bias: Floats) -> bytes:
    """Return the model of a shallow probe: a linear map of its features, normalised.

    Args:
        encoder: the model whose first layer the probe runs.
        weight: float32 [features, dimensions].
        bias: float32 [dimensions].
    """
    writer = _Writer()
    product = writer.node("MatMul", _write_features(writer, encoder), writer.constant(weight))
    mapped = writer.node("Add", product, writer.constant(bias))
    probe = writer.node("LpNormalization", mapped, axis=-1, p=2)
    return writer.model("input_ids", probe, weight.shape[1])


def features_of(encoder: Encoder | QuantizedEncoder) -> int:
    """Return the number of a shallow probe's features."""
    return 6 * int(encoder.offsets.shape[1])


class _Writer:
    """Collects nodes and constants, and names every value."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(op, list(inputs), [name], name, domain=domain, **attributes)
        )
        return name

    def model(self, ids: str, embedding: str, hidden: int) -> bytes:
        result = helper.make_node("Identity", [embedding], ["embedding"])
        graph = helper.make_graph(
            [*self._nodes, result],
            "encoder",
            [helper.make_tensor_value_info(ids, TensorProto.INT64, ["batch", "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", hidden])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized


class _Products(Protocol):
    """How word vectors and products are computed; `site` is a field of `QuantizedLayer`.

    `dtype` is that of queries, keys and values.
    """

    dtype: np.dtype[Any]

    def words(self, writer: _Writer, ids: str) -> str: ...

    def project(self, writer: _Writer, layer: int, site: str, x: str) -> list[str]: ...

    def residual(self, writer: _Writer, layer: int, site: str, x: str) -> str: ...


def _write(encoder: Encoder | QuantizedEncoder, products: _Products) -> bytes:
    writer = _Writer()
    ids = "input_ids"
    tokens = writer.node("Shape", ids, start=1, end=2)
    hidden = _write_embedding(writer, encoder, products, ids, tokens)
    hidden = _write_layers(writer, encoder, products, hidden, len(encoder.layers))
    if encoder.head is not None:
        scores = encoder.head.out.weight.shape[1]
        return writer.model(ids, _write_head(writer, encoder.head, hidden), scores)
    pooled = _write_pooling(writer, encoder, hidden, tokens)
    embedding = writer.node("LpNormalization", pooled, axis=-1, p=2)
    return writer.model(ids, embedding, encoder.offsets.shape[1])


def _write_features(writer: _Writer, encoder: Encoder | QuantizedEncoder) -> str:
    ids = "input_ids"
    products: _Products
    if isinstance(encoder, QuantizedEncoder):
        products = _Int8Products(encoder)
    else:
        products = _FloatProducts(encoder)
    tokens = writer.node("Shape", ids, start=1, end=2)
    entering = _write_embedding(writer, encoder, products, ids, tokens)
    leaving = _write_layers(writer, encoder, products, entering, 1)
    axis = writer.constant(np.array([1]))
    pooled = [
        writer.node(op, x, axis, keepdims=0)
        for x in (entering, leaving)
        for op in ("ReduceMean", "ReduceMax", "ReduceMin")
    ]
    return writer.node("Concat", *pooled, axis=-1)


def _write_layers(
    writer: _Writer,
    encoder: Encoder | QuantizedEncoder,
    products: _Products,
    hidden: str,
    count: int,
) -> str:
    rotation = None
    if encoder.rotary is not None:
        rotation = _Rotation(writer, encoder.rotary, encoder.heads, products.dtype)
    layers: Sequence[Layer | QuantizedLayer] = encoder.layers[:count]
    for index, layer in enumerate(layers):
        query, key, value = products.project(writer, index, "qkv", hidden)
        if rotation is not None:
            query, key = rotation.rotate(writer, query), rotation.rotate(writer, key)
        context = writer.node(
            "MultiHeadAttention", query, key, value, domain=_MICROSOFT, num_heads=encoder.heads
        )
        (attended,) = products.project(writer, index, "attention_out", context)
        residual = products.residual(writer, index, "qkv", hidden)
        middle = _write_norm(writer, layer.attention_norm, writer.node("Add", attended, residual))
        active = _write_activation(writer, *products.project(writer, index, "ffn_up", middle))
        (outer,) = products.project(writer, index, "ffn_down", active)
        residual = products.residual(writer, index, "ffn_up", middle)
        hidden = _write_norm(writer, layer.ffn_norm, writer.node("Add", outer, residual))
    return hidden


def _write_embedding(
    writer: _Writer,
    encoder: Encoder | QuantizedEncoder,
    products: _Products,
    ids: str,
    tokens: str,
) -> str:
    if len(encoder.offsets) == 1:
        offsets = writer.constant(encoder.offsets)
    else:
        zero, one = writer.constant(np.array([0])), writer.constant(np.array([1]))
        table = writer.constant(encoder.offsets)
        offsets = writer.node("Slice", table, zero, tokens, zero, one)
    if encoder.second is None:
        embedded = writer.node("Add", products.words(writer, ids), offsets)
        return _write_norm(writer, encoder.norm, embedded)
    words = encoder.words.rows if isinstance(encoder, QuantizedEncoder) else encoder.words
    size = writer.constant(np.int64(len(words)))
    is_second = writer.node("GreaterOrEqual", ids, size)
    raised = writer.node("Mul", writer.node("Cast", is_second, to=TensorProto.INT64), size)
    embedded = writer.node("Add", products.words(writer, writer.node("Sub", ids, raised)), offsets)
    share = writer.node("Cast", is_second, to=TensorProto.FLOAT)
    share = writer.node("Unsqueeze", share, writer.constant(np.array([-1])))
    second = writer.node("Mul", share, writer.constant(encoder.second))
    return _write_norm(writer, encoder.norm, writer.node("Add", embedded, second))


def _write_norm(writer: _Writer, norm: Norm, x: str) -> str:
    scale, shift = writer.constant(norm.scale), writer.constant(norm.shift)
    return writer.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=norm.epsilon)


class _Rotation:
    """Rotates queries and keys by their positions (RoPE); all layers share its tables."""

    def __init__(self, writer: _Writer, rotary: Rotary, heads: int, dtype: np.dtype[Any]) -> None:
        tables = rotary.cosines.astype(dtype), rotary.sines.astype(dtype)
        start = np.array([0])  # the position of the first token
        self._tables = [writer.constant(value) for value in (start, *tables)]
        self._heads = heads

    def rotate(self, writer: _Writer, x: str) -> str:
        return writer.node(
            "RotaryEmbedding", x, *self._tables, domain=_MICROSOFT, num_heads=self._heads
        )


def _write_activation(writer: _Writer, up: str, gate: str | None = None) -> str:
    if gate is None:
        return writer.node("Gelu", up, domain=_MICROSOFT)
    # x sigmoid(alpha x), which is SiLU for alpha 1.
    return writer.node("Mul", up, writer.node("QuickGelu", gate, domain=_MICROSOFT, alpha=1.0))


def _write_pooling(
    writer: _Writer, encoder: Encoder | QuantizedEncoder, hidden: str, tokens: str
) -> str:
    if encoder.pooling == "cls":
        return writer.node("Gather", hidden, writer.constant(np.array(0)), axis=1)
    zero, one = writer.constant(np.array([0])), writer.constant(np.array([1]))
    ones = writer.constant(np.ones((1, encoder.max_tokens), np.float32))
    row = writer.node("Slice", ones, zero, tokens, one, one)
    # The sum serves as the mean: the normalisation that follows removes any factor.
    return writer.node("Squeeze", writer.node("MatMul", row, hidden), one)


def _write_head(writer: _Writer, head: Head, hidden: str) -> str:
    first = writer.node("Gather", hidden, writer.constant(np.array([0])), axis=1)
    column = writer.node("Transpose", first, perm=[0, 2, 1])
    dense = writer.node("Tanh", _write_column(writer, head.dense, column))
    score = _write_column(writer, head.out, dense)
    return writer.node("Squeeze", score, writer.constant(np.array([2])))


def _write_column(writer: _Writer, linear: Linear, x: str) -> str:
    """Write a linear of columns, [batch, inputs, 1] to [batch, outputs, 1]."""
    product = writer.node("MatMul", writer.constant(linear.weight.T), x)
    return writer.node("Add", product, writer.constant(linear.bias[:, None]))


class _FloatProducts:
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def words(self, writer: _Writer, ids: str) -> str:
        return writer.node("Gather", writer.constant(self._encoder.words), ids)

    def project(self, writer: _Writer, layer: int, site: str, x: str) -> list[str]:
        return [
            writer.node(
                "Add",
                writer.node("MatMul", x, writer.constant(linear.weight)),
                writer.constant(linear.bias),
            )
            for linear in self._encoder.layers[layer].linears(site)
        ]

    def residual(self, writer: _Writer, layer: int, site: str, x: str) -> str:
        return x


class _HalfProducts(_FloatProducts):
    """Computes everything between two norms in float16."""

    dtype: np.dtype[Any] = np.dtype(np.float16)

    def words(self, writer: _Writer, ids: str) -> str:
        words = writer.constant(self._encoder.words.astype(np.float16))
        return writer.node("Cast", writer.node("Gather", words, ids), to=TensorProto.FLOAT)

    def project(self, writer: _Writer, layer: int, site: str, x: str) -> list[str]:
        if site in ("qkv", "ffn_up"):  # behind a norm
            x = writer.node("Cast", x, to=TensorProto.FLOAT16)
        products = [
            writer.node(
                "Add",
                writer.node("MatMul", x, writer.constant(linear.weight.astype(np.float16))),
                writer.constant(linear.bias.astype(np.float16)),
            )
            for linear in self._encoder.layers[layer].linears(site)
        ]
        if site in ("attention_out", "ffn_down"):  # in front of one
            return [writer.node("Cast", product, to=TensorProto.FLOAT) for product in products]
        return products


class _Int8Products:
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, encoder: QuantizedEncoder) -> None:
        self._encoder = encoder

    def words(self, writer: _Writer, ids: str) -> str:
        words = self._encoder.words
        rows = writer.node("Gather", writer.constant(words.rows), ids)
        scales = writer.node("Gather", writer.constant(words.scales), ids)
        return writer.node("Mul", writer.node("Cast", rows, to=TensorProto.FLOAT), scales)

    def project(self, writer: _Writer, layer: int, site: str, x: str) -> list[str]:
        plan: Site = getattr(self._encoder.layers[layer], site)
        if plan.squeeze is not None:
            x = writer.node("Mul", x, writer.constant(plan.squeeze))
        scale = writer.constant(np.float32(plan.scale))
        zero_point = writer.constant(np.uint8(plan.zero_point))
        quantized = writer.node("QuantizeLinear", x, scale, zero_point)
        return [
            writer.node(
                "MatMulIntegerToFloat",
                quantized,
                writer.constant(product.weight),
                scale,
                writer.constant(product.scale),
                zero_point,
                "",
                writer.constant(product.bias),
                domain=_MICROSOFT,
            )
            for product in plan.products
        ]

    def residual(self, writer: _Writer, layer: int, site: str, x: str) -> str:
        plan: Site = getattr(self._encoder.layers[layer], site)
        if plan.stretch is None:
            return x
        return writer.node("Mul", x, writer.constant(plan.stretch))
