"""How an answer is written: vectors as JSON, and headers that tell where the answer came from.

Presentation is never part of a key. The cache holds full-size float32 vectors, which are cut and
rendered here. A hot entry keeps its full-size renderings.
"""

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import orjson
from msgspec import Meta
from numpy.typing import NDArray

from cacheproxy.api.operation import Parameter
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import Control, ItemsResult, Served, ServedEmbedding

Quantized = Literal["int8", "uint8", "binary", "ubinary"]
Form = Literal["float", "base64", Quantized]
"""How a vector is written; base64 is of float32, little-endian."""

Headers = list[tuple[bytes, bytes]]

Body = bytes | list[bytes]
"""A body, or the pieces of a large one, which are never joined: that would hold up all others."""

CACHE_HEADERS = (
    Parameter(
        "Cache-Status",
        str,
        "Where the answer came from (RFC 9211). `hit` and a `detail` name the tier; `fwd` says why "
        "the answer was computed: `miss`, `request` (the client did not want a cached answer), "
        "`bypass` (such a request is never cached) or `stale`. `stored` means that the answer is "
        "on its way into the store, `collapsed` that another request for it was in flight, `ttl` "
        "how many seconds the entry remains fresh. A batch whose texts were answered by several "
        "tiers counts them in `detail`.",
        example="cacheproxy; hit; ttl=86399; detail=semantic",
        is_required=True,
    ),
    Parameter(
        "Server-Timing",
        str,
        "How long each stage took, in milliseconds.",
        example="exact;dur=0.412, total;dur=0.611",
        is_required=True,
    ),
    Parameter(
        "Age",
        Annotated[int, Meta(ge=0)],
        "Of a hit: seconds since the entry was made. Of several texts, the oldest entry's.",
    ),
    Parameter(
        "X-Cacheproxy-Similarity",
        str,
        "Of a semantic hit: the score of the entry that was served. A batch lists the scores by "
        "the index of the input.",
        example="0.9812",
    ),
    Parameter(
        "X-Cacheproxy-Warning",
        str,
        "What is doubtful about the request, though it was answered: `dimensions` that the model "
        "was not trained to be cut to.",
        example="all-MiniLM-L6-v2 was not trained for vectors cut to 128 dimensions",
    ),
)
"""The headers that `hit_headers`, `cache_headers` and the completions endpoint write."""

_PLAIN_HITS = ("hot", "exact")

_RENDERED_AT_ONCE = 64
"""Vectors rendered in one turn of the event loop, about a millisecond: 2,048 take 40 to 100 ms."""


def render_vector(served: ServedEmbedding, form: Form, dimensions: int | None) -> bytes:
    """Return one embedding as a JSON value: an array of numbers, or base64 of float32 (LE).

    `dimensions`, 1 to the model's, cuts the vector and re-normalises it; None keeps it whole.
    """
    entry = served.hot_entry
    if dimensions is not None:
        return _render(_cut(served.record.vector, dimensions), form)
    if entry is None:
        return _render(served.record.vector, form)
    rendered = entry.rendered.get(form)
    if rendered is None:
        rendered = _render(served.record.vector, form)
        # Most misses are never requested again, so only an entry that was hit keeps its rendering.
        if served.outcome == "hot":
            entry.remember(form, rendered)
    return rendered


async def render_vectors(
    answer: ItemsResult[EmbeddingRecord], form: Form, dimensions: int | None
) -> list[bytes]:
    """Return all embeddings as `render_vector` does; other requests have their turn in between."""
    vectors: list[bytes] = []
    for served in answer.served:
        vectors.append(render_vector(served, form, dimensions))
        if len(vectors) % _RENDERED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return vectors


class VectorFrame(NamedTuple):
    """An answer with one vector: the bytes before and after it, and how it is written."""

    head: bytes
    form: Form
    tail: bytes

    def fill(self, served: ServedEmbedding) -> bytes:
        """Return the answer."""
        return b"".join((self.head, render_vector(served, self.form, None), self.tail))


def _cut(vector: bytes, dimensions: int) -> bytes:
    part = np.frombuffer(vector, "<f4")[:dimensions]
    norm = np.linalg.norm(part)
    return (part / norm if norm else part).astype("<f4").tobytes()


def _render(vector: bytes, form: Form) -> bytes:
    if form == "base64":
        return b'"' + base64.b64encode(vector) + b'"'
    numbers = np.frombuffer(vector, "<f4")
    shown = numbers if form == "float" else quantize(numbers, form)
    return orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)


def quantize(vector: NDArray[np.float32], dtype: Quantized) -> NDArray[np.int8] | NDArray[np.uint8]:
    """Return a vector, float32 [d], as int8 or uint8 [d], or as bits packed into [ceil(d / 8)].

    int8 is round(127 x / max |x|), so that it needs no calibration and keeps the cosine (the
    largest component decides the scale of its vector); uint8 is int8 + 128. Bits are 1 where x > 0,
    the first dimension in the highest bit; binary is ubinary - 128 ("offset binary"), as Voyage,
    Cohere and sentence-transformers (`quantize_embeddings`) have it.
    """
    if dtype in ("binary", "ubinary"):
        bits = np.packbits(vector > 0)
        return bits if dtype == "ubinary" else (bits ^ 0x80).view(np.int8)
    largest = np.abs(vector).max(initial=0)
    scaled = np.rint(vector * (127 / largest)) if largest else np.zeros_like(vector)
    if dtype == "int8":
        return scaled.astype(np.int8)
    return (scaled + 128).astype(np.uint8)


def outcome_of(answer: ItemsResult[Any]) -> str:
    """Return the common outcome of all inputs, or "mixed"."""
    if len(answer.served) == 1:
        return answer.served[0].outcome
    outcomes = {served.outcome for served in answer.served}
    return outcomes.pop() if len(outcomes) == 1 else "mixed"


def hit_headers(
    outcome: str, created_at: float, expires_at: float, timing: bytes | None, total_s: float
) -> Headers:
    """Return the headers of a hit for one text or many, all from one tier that has no scores.

    `created_at` is the oldest entry's and `expires_at` the earliest (Unix time); `timing` is that
    of the stages, if there were any.
    """
    now = time.time()
    total = b"total;dur=%.3f" % (total_s * 1000)
    return [
        (
            b"cache-status",
            b"cacheproxy; hit; ttl=%d; detail=%b" % (expires_at - now, outcome.encode()),
        ),
        (b"server-timing", total if timing is None else b"%b, %b" % (timing, total)),
        (b"age", b"%d" % (now - created_at)),
    ]


def cache_headers(
    answer: ItemsResult[Any], outcome: str, control: Control, total_s: float
) -> Headers:
    """Return Cache-Status (RFC 9211), Age, Server-Timing and X-Cacheproxy-Similarity.

    `outcome` is the answer's, as `outcome_of` gives it.
    """
    now = time.time()
    served = answer.served
    created_at, expires_at = now, float("inf")
    misses = stored = collapsed = 0
    for text in served:
        created_at = min(created_at, text.record.created_at)
        expires_at = min(expires_at, text.record.expires_at)
        if text.outcome == "miss":
            misses += 1
            stored += text.is_stored
            collapsed += text.collapsed
    if outcome in _PLAIN_HITS:
        stages = timing_of(answer.stages_s) if answer.stages_s else None
        return hit_headers(outcome, created_at, expires_at, stages, total_s)
    ttl_s = int(expires_at - now)
    timing = (
        b"server-timing",
        b"%b, total;dur=%.3f" % (timing_of(answer.stages_s), total_s * 1000),
    )
    parts = ["cacheproxy"]
    if misses:
        parts.append("fwd=miss" if control.reads else "fwd=request")
        if stored == misses:
            parts.append(f"ttl={ttl_s}; stored")
        if collapsed == misses:
            parts.append("collapsed")
    else:
        parts.append(f"hit; ttl={ttl_s}")
    if outcome == "mixed":
        parts.append(f'detail="{counts_of(served)}"')
    elif outcome != "miss":
        parts.append(f"detail={outcome}")
    headers = [(b"cache-status", "; ".join(parts).encode()), timing]
    if not misses:
        headers.append((b"age", b"%d" % (now - created_at)))
    if outcome != "miss" and (similarity := _similarity(served)):
        headers.append((b"x-cacheproxy-similarity", similarity.encode()))
    return headers


def counts_of(served: Sequence[Served[Any]]) -> str:
    """Return how many inputs each tier answered: "hot=3,miss=1"."""
    outcomes = [text.outcome for text in served]
    tiers = ("hot", "exact", "semantic", "miss")
    return ",".join(f"{tier}={outcomes.count(tier)}" for tier in tiers if tier in outcomes)


def timing_of(stages_s: Mapping[str, float]) -> bytes:
    """Return the stages of a `Server-Timing` header."""
    return b", ".join(
        [b"%b;dur=%.3f" % (stage.encode(), 1000 * spent) for stage, spent in stages_s.items()]
    )


def _similarity(served: Sequence[Served[Any]]) -> str:
    scores = [(i, text.score) for i, text in enumerate(served) if text.score is not None]
    if scores and len(served) == 1:
        return f"{scores[0][1]:.4f}"
    return ", ".join(f"{i}={score:.4f}" for i, score in scores)
