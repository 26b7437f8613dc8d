"""What text-embeddings-inference serves beside `/embed`: similarities, tokens, and what is served.

`POST /similarity` compares one text with others, and is a dialect of embeddings: each text takes
its way through the tiers. `POST /` is what huggingface_hub's `InferenceClient` calls when it has
only the server's address: the form of `inputs` tells whether texts are to be embedded or compared.
`POST /tokenize` and `GET /info` tell about the local models.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from cacheproxy.api.dialects.embed import EmbedDialect
from cacheproxy.api.dialects.embedding import Asked, Text
from cacheproxy.api.dialects.embedding_options import ONE_SPELLING, EmbeddingOptions, PromptName
from cacheproxy.api.dialects.protocol import ITEM_HEADERS, ITEM_REFUSALS
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import CACHE_HEADERS
from cacheproxy.api.request.body import decode_json
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.errors import BadRequest
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import EmbeddingsResult, ModelInfo

_TAG = "text-embeddings-inference"

_Texts = Annotated[list[Text], Meta(min_length=1)]
_ALWAYS = {"const": True}
_ModelName = Annotated[
    str | None, Meta(description="A model that `GET /v1/models` lists; else the server's own.")
]
_Truncate = Annotated[
    bool, Meta(description="Long texts are always truncated.", extra_json_schema=_ALWAYS)
]
_Direction = Annotated[
    Literal["right", "Right"] | None, Meta(description="Texts are truncated at their end.")
]


class Compared(msgspec.Struct):
    """One text, and those that it is compared with."""

    source_sentence: Text
    sentences: _Texts


class SimilarityParameters(msgspec.Struct):
    """Options, in text-embeddings-inference's words."""

    truncate: _Truncate = True
    truncation_direction: _Direction = None
    prompt_name: Annotated[
        PromptName | None, Meta(description="The prefix that is put in front of all texts.")
    ] = None


class SimilarityRequest(msgspec.Struct):
    """Texts to compare. Fields that are not listed are ignored."""

    inputs: Compared
    parameters: SimilarityParameters | None = None
    model: _ModelName = None


class RootRequest(EmbeddingOptions, kw_only=True):
    """Texts to embed, as for `/embed`, or to compare, as for `/similarity`."""

    inputs: Text | _Texts | Compared
    parameters: SimilarityParameters | None = None
    model: _ModelName = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Length to which vectors are cut; at most the model's."),
    ] = None
    normalize: Annotated[
        bool, Meta(description="Vectors are always normalised.", extra_json_schema=_ALWAYS)
    ] = True
    truncate: _Truncate = True
    truncation_direction: _Direction = None


_Similarities = Annotated[
    list[float], Meta(description="The cosine of each sentence to the source sentence.")
]

SIMILARITY = Operation(
    method="POST",
    path="/similarity",
    id="compareTexts",
    tag=_TAG,
    summary="Compare a text with others",
    description="Cosines of embeddings. The tiers and the entries are those of `/v1/embeddings`.",
    headers=ITEM_HEADERS,
    body=Content(
        SimilarityRequest,
        {
            "One": {
                "inputs": {
                    "source_sentence": "What is a cache?",
                    "sentences": ["What does a cache do?", "How tall is the Eiffel Tower?"],
                }
            }
        },
    ),
    replies={
        200: Reply(
            "The similarities, in the order of the sentences.",
            (Content(_Similarities, {"One": [0.91, 0.02]}),),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

ROOT = Operation(
    method="POST",
    path="/",
    id="embedOrCompare",
    tag=_TAG,
    summary="Embed texts, or compare them",
    description="As `/embed` where `inputs` is a text or several, as `/similarity` where it is an "
    "object. huggingface_hub's `InferenceClient` calls it when it has only the server's address.",
    headers=ITEM_HEADERS,
    body=Content(
        Annotated[RootRequest, Meta(extra_json_schema=ONE_SPELLING)],
        {"A text": {"inputs": "What is a cache?"}},
    ),
    replies={
        200: Reply(
            "An array of vectors, or of similarities.",
            (Content(list[list[float] | float], {"A text": [[0.6, -0.8]]}),),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)


class TokenizeRequest(msgspec.Struct):
    """Texts to tokenise. Fields that are not listed are ignored."""

    inputs: Text | _Texts
    add_special_tokens: Annotated[
        bool, Meta(description="Whether the model's special tokens are put around each text.")
    ] = True
    prompt_name: Annotated[
        PromptName | None, Meta(description="The prefix that is put in front of each text.")
    ] = None
    model: _ModelName = None


class Token(msgspec.Struct):
    """A token of a text."""

    id: int
    text: Annotated[str, Meta(description="The part of the text, or the special token's name.")]
    special: bool
    start: Annotated[int | None, Meta(description="Where the part is, in characters.")]
    stop: int | None


TOKENIZE = Operation(
    method="POST",
    path="/tokenize",
    id="tokenize",
    tag=_TAG,
    summary="Tokenise texts as a local model does",
    description="Nothing is truncated. Models of upstreams have no tokenizer here (400).",
    headers=(REQUEST_ID,),
    body=Content(TokenizeRequest, {"One": {"inputs": "a cache"}}),
    replies={
        200: Reply(
            "The tokens of each text.",
            (
                Content(
                    list[list[Token]],
                    {
                        "One": [
                            [
                                {
                                    "id": 1037,
                                    "text": "a",
                                    "special": False,
                                    "start": 0,
                                    "stop": 1,
                                }
                            ]
                        ]
                    },
                ),
            ),
        ),
        **refusals(400, 401, 404, 408, 413, 415, 422, 500, 503),
    },
)


class EmbeddingType(msgspec.Struct):
    """What an embedding model does."""

    pooling: Annotated[str, Meta(description="How token vectors become one.", examples=["mean"])]


class ModelType(msgspec.Struct):
    """The kind of a model."""

    embedding: EmbeddingType


class Info(msgspec.Struct):
    """What is served, in text-embeddings-inference's words."""

    model_id: str
    model_sha: Annotated[str, Meta(description="The fingerprint.")]
    model_dtype: str
    model_type: ModelType
    max_input_length: Annotated[int, Meta(description="Where texts are truncated, in tokens.")]
    max_client_batch_size: Annotated[int, Meta(description="The most texts in a request.")]
    max_batch_tokens: Annotated[int, Meta(description="The most tokens in one inference.")]
    max_concurrent_requests: Annotated[int, Meta(description="The most connections.")]
    tokenization_workers: int
    auto_truncate: bool
    version: str
    max_batch_requests: int | UnsetType = UNSET


INFO = Operation(
    method="GET",
    path="/info",
    id="getInfo",
    tag=_TAG,
    summary="Get the default model and the limits",
    description="`GET /v1/models` lists all models.",
    headers=(REQUEST_ID,),
    replies={200: Reply("What is served.", (Content(Info),)), **refusals(401, 500)},
)

_SIMILARITY = msgspec.json.Decoder(SimilarityRequest)
_ROOT = msgspec.json.Decoder(RootRequest)


class SimilarityDialect:
    """`/similarity`: the first input is the one that the others are compared with."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_SIMILARITY, body)
        return _comparison(asked.inputs, asked.parameters, asked.model)

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the cosines, which of unit vectors are their products."""
        vectors = np.stack([np.frombuffer(one.record.vector, "<f4") for one in answer.served])
        cosines = vectors[1:].astype(np.float64) @ vectors[0].astype(np.float64)
        return msgspec.json.encode(np.clip(cosines, -1, 1).tolist())

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> None:
        """Return None: an answer is made of several vectors."""


class _ComparisonAsked(Asked):
    """A request to compare texts, which is answered with cosines."""


class RootDialect:
    """`/`: both forms."""

    def __init__(self) -> None:
        self._embed, self._similarity = EmbedDialect(), SimilarityDialect()

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_ROOT, body)
        if isinstance(asked.inputs, Compared):
            return _comparison(asked.inputs, asked.parameters, asked.model)
        return self._embed.parse(body)

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the body in the form of the request."""
        is_comparison = isinstance(asked, _ComparisonAsked)
        dialect = self._similarity if is_comparison else self._embed
        return await dialect.render(asked, answer, model, total_s)

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> None:
        """Return None, as the dialects of both forms do."""


def _comparison(
    inputs: Compared, parameters: SimilarityParameters | None, model: str | None
) -> Asked:
    given = parameters or SimilarityParameters()
    if not given.truncate:
        raise BadRequest("long texts are always truncated", param="truncate")
    role = EmbeddingOptions(prompt_name=given.prompt_name).role
    return _ComparisonAsked([inputs.source_sentence, *inputs.sentences], model, role=role)
