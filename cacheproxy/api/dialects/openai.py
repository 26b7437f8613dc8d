"""`POST /v1/embeddings` as the official OpenAI clients speak it."""

from typing import Literal

import msgspec

from cacheproxy.api.body import decode_json
from cacheproxy.api.dialects.protocol import Asked
from cacheproxy.api.presentation import render_vector
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import EmbeddingsResult


class _Body(msgspec.Struct):
    input: str | list[str | int | list[int]]
    model: str
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


_DECODER = msgspec.json.Decoder(_Body)

_HEAD = b'{"object":"list","data":['
_ITEM = b'{"object":"embedding","index":%d,"embedding":'


class OpenAIDialect:
    """OpenAI's create-embeddings request and response."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_DECODER, body)
        return Asked(
            inputs=_inputs(asked.input),
            model=asked.model,
            form=asked.encoding_format or "float",
            dimensions=asked.dimensions,
        )

    def render(self, asked: Asked, answer: EmbeddingsResult, model: str, total_s: float) -> bytes:
        """Return OpenAI's list object, with the tokens that the model read as usage."""
        data, tokens = [], 0
        for i, served in enumerate(answer.served):
            vector = render_vector(served, asked.form, asked.dimensions)
            data.append(_ITEM % i + vector)
            tokens += served.record.tokens
        return _HEAD + b"},".join(data) + _tail(model, tokens)

    def frame(self, model: str, tokens: int) -> tuple[bytes, bytes]:
        """Return what stands around the vector in the answer to one input."""
        return _HEAD + _ITEM % 0, _tail(model, tokens)


def _tail(model: str, tokens: int) -> bytes:
    usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    return b'}],"model":%b,%b}' % (msgspec.json.encode(model), usage)


def _inputs(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    texts = [value for value in given if isinstance(value, str)]
    ids = [value for value in given if isinstance(value, int)]
    lists = [value for value in given if isinstance(value, list)]
    if given and len(ids) == len(given):
        return [ids]
    if len(texts) == len(given):
        return [*texts]
    if len(lists) == len(given):
        return [*lists]
    raise BadRequest("'input' must not mix texts and token ids", param="input")
