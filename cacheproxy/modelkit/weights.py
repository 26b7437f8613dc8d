"""A BERT encoder's weights, read from safetensors and config.json into named arrays.

Everything behind this file (graph, calibration, quantisation) sees only these classes, with
matrices laid out [inputs, outputs] as products use them. What PyTorch stores otherwise is turned
here, once; token type 0, the only one an embedding model sees, is folded into the positions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ModelError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias: weight float32 [inputs, outputs], bias float32 [outputs]."""

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
    """One encoder layer."""

    query: Linear
    key: Linear
    value: Linear
    attention_out: Linear
    attention_norm: Norm
    ffn_up: Linear
    ffn_down: Linear
    ffn_norm: Norm

    def linears(self, site: str) -> tuple[Linear, ...]:
        """Return the matrices that share a site's activation ("qkv", or the name of one)."""
        if site == "qkv":
            return self.query, self.key, self.value
        linear: Linear = getattr(self, site)
        return (linear,)


@dataclass(frozen=True)
class Encoder:
    """A BERT encoder: words [vocabulary, hidden] and positions [max_tokens, hidden], float32."""

    words: Floats
    positions: Floats
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int


def read_encoder(weights_path: Path, config_path: Path, max_tokens: int) -> Encoder:
    """Return the encoder in a safetensors file, its position table cut to max_tokens rows.

    Raises:
        ModelError: the configuration is not that of a BERT encoder that can be built, or weights
            are missing or of another shape.
    """
    from safetensors.numpy import load_file

    config = json.loads(config_path.read_bytes())
    _check_config(config, max_tokens)
    return encoder_from_tensors(load_file(weights_path), config, max_tokens)


def encoder_from_tensors(
    tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any], max_tokens: int
) -> Encoder:
    """Return the encoder in tensors named as the Hugging Face BERT model names them.

    Raises:
        ModelError: a tensor is missing or of another shape than the configuration says.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    epsilon = config["layer_norm_eps"]

    def read(name: str, *shape: int) -> Floats:
        if name not in tensors:
            raise ModelError(f"the weights lack {name}")
        if tensors[name].shape != shape:
            raise ModelError(f"{name} is {tensors[name].shape}, not {shape}")
        return np.ascontiguousarray(tensors[name], dtype=np.float32)

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        weight = read(f"{name}.weight", outputs, inputs)
        return Linear(np.ascontiguousarray(weight.T), read(f"{name}.bias", outputs))

    def norm(name: str) -> Norm:
        return Norm(read(f"{name}.weight", hidden), read(f"{name}.bias", hidden), epsilon)

    def layer(name: str) -> Layer:
        return Layer(
            query=linear(f"{name}.attention.self.query", hidden, hidden),
            key=linear(f"{name}.attention.self.key", hidden, hidden),
            value=linear(f"{name}.attention.self.value", hidden, hidden),
            attention_out=linear(f"{name}.attention.output.dense", hidden, hidden),
            attention_norm=norm(f"{name}.attention.output.LayerNorm"),
            ffn_up=linear(f"{name}.intermediate.dense", hidden, inner),
            ffn_down=linear(f"{name}.output.dense", inner, hidden),
            ffn_norm=norm(f"{name}.output.LayerNorm"),
        )

    positions = read(
        "embeddings.position_embeddings.weight", config["max_position_embeddings"], hidden
    )
    types = read("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
    return Encoder(
        words=read("embeddings.word_embeddings.weight", config["vocab_size"], hidden),
        positions=positions[:max_tokens] + types[0],
        norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(f"encoder.layer.{i}") for i in range(config["num_hidden_layers"])),
        heads=config["num_attention_heads"],
    )


def _check_config(config: Mapping[str, Any], max_tokens: int) -> None:
    expected = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
    }
    for field, value in expected.items():
        if config.get(field, value) != value:
            raise ModelError(f"config.json: {field} is {config[field]!r}, not {value!r}")
    if config["max_position_embeddings"] < max_tokens:
        raise ModelError(
            f"config.json: {config['max_position_embeddings']} positions are fewer than "
            f"the manifest's {max_tokens} tokens"
        )
