"""Reads the weights out of a float ONNX graph that PyTorch's exporter wrote.

The exporter keeps the names of tensors that it leaves alone, behind the path of the module that was
exported (`model.0.auto_model.`). The weight of a linear layer it turns round and renames
(`onnx::MatMul_470`); the bias that is added to the product still says whose it was.
"""

from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from cacheproxy.errors import ModelError

_FIRST = "embeddings.word_embeddings.weight"
"""A tensor of every architecture that is known; what stands in front of it, all names have."""

_BIAS, _WEIGHT = ".bias", ".weight"


def read_exported(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors under the names and in the layout that they had before the export.

    Raises:
        ModelError: it is no encoder's graph.
    """
    graph = onnx.load(path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in tensors
    }
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (node.input, reversed(node.input)):
            if bias.endswith(_BIAS) and product in products:
                name = bias.removesuffix(_BIAS) + _WEIGHT
                tensors.setdefault(name, tensors[products[product]].T)
    prefix = next((name.removesuffix(_FIRST) for name in tensors if name.endswith(_FIRST)), None)
    if prefix is None:
        raise ModelError(f"{path.name}: the graph lacks {_FIRST}")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
