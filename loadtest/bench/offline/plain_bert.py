"""The usual graph of BERT, as an exporter writes it: padded batches with a mask.

`input_ids` and `attention_mask`, int64 [batch, tokens] -> `embedding` float32 [batch, hidden], unit
rows by masked mean pooling. It has only standard operators, like the output of PyTorch's exporter;
the engine is compared with what ONNX Runtime makes of them by default.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cacheproxy.modelkit.building.weights import Encoder, Layer, Linear, Norm


def plain_graph(encoder: Encoder) -> onnx.ModelProto:
    """Return the float32 model of a BERT encoder with mean pooling."""
    return _Plain(encoder).model()


class _Plain:
    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._hidden = encoder.words.shape[1]
        self._head = self._hidden // encoder.heads
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        encoder = self._encoder
        length = self._node("Gather", self._node("Shape", "input_ids"), self._const(1))
        end = self._node("Unsqueeze", length, self._ints(0))
        positions = self._node(
            "Slice", self._const(encoder.offsets), self._ints(0), end, self._ints(0)
        )
        words = self._node("Gather", self._const(encoder.words), "input_ids")
        x = self._norm(self._node("Add", words, positions), encoder.norm)
        mask = self._node("Cast", "attention_mask", to=TensorProto.FLOAT)
        wide = self._node("Unsqueeze", mask, self._ints(1, 2))
        absent = self._node("Sub", self._const(np.float32(1)), wide)
        penalty = self._node("Mul", absent, self._const(np.finfo(np.float32).min))
        for layer in encoder.layers:
            x = self._layer(x, layer, penalty)
        self._pool(x, mask)
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info(
            "embedding", TensorProto.FLOAT, ["batch", self._hidden]
        )
        graph = helper.make_graph(self._nodes, "plain", inputs, [output], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def _layer(self, x: str, layer: Layer, penalty: str) -> str:
        query = self._split(self._linear(x, layer.query), 0, 2, 1, 3)
        key = self._split(self._linear(x, layer.key), 0, 2, 3, 1)
        value = self._split(self._linear(x, layer.value), 0, 2, 1, 3)
        scores = self._node(
            "Div", self._node("MatMul", query, key), self._const(np.sqrt(np.float32(self._head)))
        )
        weights = self._node("Softmax", self._node("Add", scores, penalty), axis=-1)
        context = self._node("Transpose", self._node("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = self._node("Reshape", context, self._ints(0, 0, self._hidden))
        attended = self._linear(joined, layer.attention_out)
        x = self._norm(self._node("Add", attended, x), layer.attention_norm)
        inner = self._linear(x, layer.ffn_up)
        scaled = self._node("Div", inner, self._const(np.sqrt(np.float32(2))))
        gate = self._node("Add", self._node("Erf", scaled), self._const(np.float32(1)))
        active = self._node("Mul", self._node("Mul", inner, gate), self._const(np.float32(0.5)))
        return self._norm(
            self._node("Add", self._linear(active, layer.ffn_down), x), layer.ffn_norm
        )

    def _pool(self, x: str, mask: str) -> None:
        column = self._node("Unsqueeze", mask, self._ints(2))
        total = self._node("ReduceSum", self._node("Mul", x, column), self._ints(1), keepdims=0)
        count = self._node("ReduceSum", mask, self._ints(1), keepdims=1)
        mean = self._node("Div", total, count)
        norm = self._node("ReduceL2", mean, self._ints(1), keepdims=1)
        self._nodes.append(helper.make_node("Div", [mean, norm], ["embedding"]))

    def _split(self, x: str, *order: int) -> str:
        shape = self._ints(0, 0, self._encoder.heads, self._head)
        return self._node("Transpose", self._node("Reshape", x, shape), perm=list(order))

    def _linear(self, x: str, linear: Linear) -> str:
        product = self._node("MatMul", x, self._const(linear.weight))
        return self._node("Add", product, self._const(linear.bias))

    def _norm(self, x: str, norm: Norm) -> str:
        return self._node(
            "LayerNormalization",
            x,
            self._const(norm.scale),
            self._const(norm.shift),
            axis=-1,
            epsilon=norm.epsilon,
        )

    def _ints(self, *values: int) -> str:
        return self._const(np.array(values, np.int64))

    def _const(self, value: NDArray[Any] | np.generic | int) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name
