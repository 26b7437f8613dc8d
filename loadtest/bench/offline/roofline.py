"""How fast this machine multiplies INT8 matrices, which no engine on ONNX Runtime can exceed.

The graph holds only the matrix products of the model (u8 by s8, with the kernels, shapes and total
weight size of the engine). It runs on all cores, with inputs and outputs allocated beforehand.
"""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cacheproxy.modelkit.building.weights import Encoder

_MICROSOFT = "com.microsoft"


class Roofline:
    """The matrix products of an encoder for a number of tokens, split over the cores."""

    def __init__(self, encoder: Encoder, tokens: int, *, threads: int) -> None:
        self._shapes = [
            linear.weight.shape
            for layer in encoder.layers
            for site in ("qkv", "attention_out", "ffn_up", "ffn_down")
            for linear in layer.linears(site)
        ]
        self._tokens = tokens // threads * threads
        self._bindings = [self._bind(tokens // threads) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)

    @property
    def operations(self) -> int:
        """Multiplications and additions of one run."""
        return 2 * self._tokens * sum(math.prod(shape) for shape in self._shapes)

    def run(self) -> float:
        """Return the seconds of one run."""
        started = time.perf_counter()
        list(self._pool.map(lambda bound: bound[0].run_with_iobinding(bound[1]), self._bindings))
        return time.perf_counter() - started

    def _bind(self, tokens: int) -> tuple[ort.InferenceSession, ort.IOBinding]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            _products(self._shapes).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        binding = session.io_binding()
        rng = np.random.default_rng(0)
        for given in session.get_inputs():
            x = rng.integers(0, 256, (tokens, int(given.name[1:])), np.uint8)
            binding.bind_ortvalue_input(given.name, ort.OrtValue.ortvalue_from_numpy(x))
        for (_, outputs), result in zip(self._shapes, session.get_outputs(), strict=True):
            space = np.empty((tokens, outputs), np.float32)
            binding.bind_ortvalue_output(result.name, ort.OrtValue.ortvalue_from_numpy(space))
        return session, binding


def _products(shapes: list[tuple[int, ...]]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes, constants, results = [], [], []
    for i, (inputs, outputs) in enumerate(shapes):
        values = {
            f"w{i}": rng.integers(-127, 128, (inputs, outputs), np.int8),
            f"s{i}": np.full(outputs, 0.01, np.float32),
            f"b{i}": np.zeros(outputs, np.float32),
        }
        constants += [numpy_helper.from_array(value, name) for name, value in values.items()]
        operands = [f"x{inputs}", f"w{i}", "scale", f"s{i}", "zero", "", f"b{i}"]
        nodes.append(
            helper.make_node("MatMulIntegerToFloat", operands, [f"y{i}"], domain=_MICROSOFT)
        )
        results.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None))
    constants.append(numpy_helper.from_array(np.array(0.01, np.float32), "scale"))
    constants.append(numpy_helper.from_array(np.array(128, np.uint8), "zero"))
    given = [
        helper.make_tensor_value_info(f"x{width}", TensorProto.UINT8, ["tokens", width])
        for width in sorted({inputs for inputs, _ in shapes})
    ]
    graph = helper.make_graph(nodes, "products", given, results, constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
