"""An INT8 encoder as data: what `quantize` makes and `graph` writes down.

A site is a place where one activation meets its matrices. Its activation x becomes u8 with one
constant scale and zero point, q = round(x / scale) + zero_point, so that a text's vector never
depends on its batch-mates; its matrices are s8 with one scale per output. Sites fed by a layer
normalisation take it smoothed: the normalisation gives (x - shift) / stretch, the matrices hold
the inverse, and the residual branch, which needs x, multiplies by `stretch` again (its shift is
in the bias of the product that it is added to).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.modelkit.building.weights import Floats, Norm, Rotary
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
        scale: of the activation's u8 values.
        zero_point: the u8 value that stands for 0.
        products: query, key, value, or the feed-forward's up and gate, where there are several.
        squeeze: float32 [inputs], multiplied into the activation before it is quantised, or None
            where whatever computes the activation has that factor already.
        stretch: float32 [inputs] that turns the activation into the residual branch, or None.
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
    """The word table: int8 [vocabulary, hidden], and float32 [vocabulary, 1], a scale a row."""

    rows: NDArray[np.int8]
    scales: Floats


@dataclass(frozen=True)
class QuantizedEncoder:
    """`weights.Encoder` in INT8: fields of the same name say the same."""

    words: QuantizedWords
    offsets: Floats
    norm: Norm
    layers: tuple[QuantizedLayer, ...]
    heads: int
    rotary: Rotary | None
    pooling: Pooling
    max_tokens: int
