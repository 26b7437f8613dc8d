"""An INT8 encoder as data: `quantize` makes it, and `graph` writes it as ONNX.

A site is a place where one activation meets its matrices. Its activation x becomes u8 with one
constant scale and zero point, q = round(x / scale) + zero_point, so that a text's vector never
depends on its batch-mates; its matrices are s8 with one scale per output. Where a site is fed by a
layer normalisation, its input is smoothed: the normalisation computes (x - shift) / stretch, and
the matrices hold the inverse. The residual branch needs x itself: it is multiplied by `stretch`,
and `shift` is part of the bias of the product to which the branch is added.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.modelkit.building.weights import Floats, Head, Norm, Rotary
from cacheproxy.modelkit.manifest import Pooling


@dataclass(frozen=True)
class Product:
    """A quantised linear: weight int8 [inputs, outputs], scale and bias float32 [outputs]."""

    weight: NDArray[np.int8]
    scale: Floats
    bias: Floats


@dataclass(frozen=True)
class Site:
    """An activation and the products that share it.

    Attributes:
        scale: the scale of the activation's u8 values.
        zero_point: the u8 value that represents 0.
        products: query, key, value, or the feed-forward's up and gate, where there are several.
        squeeze: float32 [inputs], by which the activation is multiplied before it is quantised;
            None if the factor is folded into what computes the activation.
        stretch: float32 [inputs], by which the activation is multiplied for the residual branch;
            None if there is nothing to undo.
    """

    scale: float
    zero_point: int
    products: tuple[Product, ...]
    squeeze: Floats | None = None
    stretch: Floats | None = None


@dataclass(frozen=True)
class QuantizedLayer:
    """One encoder layer; its norms are smoothed for the site that each feeds."""

    qkv: Site
    attention_out: Site
    attention_norm: Norm
    ffn_up: Site
    ffn_down: Site
    ffn_norm: Norm


@dataclass(frozen=True)
class QuantizedWords:
    """The word table: int8 [vocabulary, hidden], and its scales, float32 [vocabulary, 1]."""

    rows: NDArray[np.int8]
    scales: Floats


@dataclass(frozen=True)
class QuantizedEncoder:
    """`weights.Encoder` in INT8; fields of the same name have the same meaning.

    A head stays in float32.
    """

    words: QuantizedWords
    offsets: Floats
    norm: Norm
    layers: tuple[QuantizedLayer, ...]
    heads: int
    rotary: Rotary | None
    pooling: Pooling
    max_tokens: int
    second: Floats | None = None
    head: Head | None = None
