"""`POST /embed` in its two forms: our own plain one, and text-embeddings-inference's.

{"texts": […]}            -> {"embeddings": […], "model": …, "latency_ms": …}
{"inputs": "…" or […]}    -> [[…], …]
"""

import msgspec

from cacheproxy.api.body import decode_json
from cacheproxy.api.dialects.protocol import Asked
from cacheproxy.api.presentation import render_vector
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import EmbeddingsResult


class _Body(msgspec.Struct):
    texts: list[str] | None = None
    inputs: str | list[str] | None = None
    model: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    truncate: bool = True


_DECODER = msgspec.json.Decoder(_Body)


class _PlainAsked(Asked):
    """Asked in our own form, and answered in it."""


class EmbedDialect:
    """Both forms; which one is meant shows in the name of the inputs."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_DECODER, body)
        if not asked.normalize:
            raise BadRequest("vectors are always normalised", param="normalize")
        if not asked.truncate:
            raise BadRequest("long texts are always truncated", param="truncate")
        if (asked.texts is None) == (asked.inputs is None):
            raise BadRequest("give either 'texts' or 'inputs'", param="texts")
        if asked.texts is not None:
            return _PlainAsked(asked.texts, asked.model, dimensions=asked.dimensions)
        inputs = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        return Asked(inputs or [], asked.model, dimensions=asked.dimensions)

    def render(self, asked: Asked, answer: EmbeddingsResult, model: str, total_s: float) -> bytes:
        """Return the body in the form in which the request was made."""
        vectors = b",".join(
            render_vector(served, asked.form, asked.dimensions) for served in answer.served
        )
        if not isinstance(asked, _PlainAsked):
            return b"[%b]" % vectors
        return b'{"embeddings":[%b],"model":%b,"latency_ms":%.3f}' % (
            vectors,
            msgspec.json.encode(model),
            total_s * 1000,
        )

    def frame(self, model: str, tokens: int) -> None:
        """Return that answers are not always the same: they tell their time."""
