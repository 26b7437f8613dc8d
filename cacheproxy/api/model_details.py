"""What text-embeddings-inference and Ollama tell about models, and the tokens of a text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import cacheproxy
from cacheproxy.api.callers import Callers
from cacheproxy.api.connection import Watch, Watched
from cacheproxy.api.dialects.embedding_options import EmbeddingOptions
from cacheproxy.api.dialects.ollama import (
    OllamaDetails,
    OllamaModel,
    OllamaShowResponse,
    OllamaTags,
    OllamaVersion,
    parse_show,
)
from cacheproxy.api.dialects.protocol import InputLimits
from cacheproxy.api.dialects.tei import EmbeddingType, Info, ModelType, TokenizeRequest
from cacheproxy.api.request.body import decode_json, read_body
from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import BadRequest
from cacheproxy.inference.inputs import InputReader
from cacheproxy.inference.pieces import PieceTokenizer
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.telemetry.request_trace import VISIT, Visit

_MOST_SHOW_BYTES = 4_096
_MOST_TOKENIZE_BYTES = 256 * 1024
"""A token of one byte becomes some 60 bytes of JSON."""

_TOKENIZE = msgspec.json.Decoder(TokenizeRequest)


@dataclass(frozen=True, slots=True)
class LocalDetails:
    """What is known of a local model beside its `ModelInfo`.

    Attributes:
        pooling: how token vectors become one.
        dtype: of its products.
        size_bytes: of its graph.
        pieces: shows how it cuts texts up.
        reader: reads inputs for it.
    """

    pooling: str
    dtype: str
    size_bytes: int
    pieces: PieceTokenizer
    reader: InputReader


class ModelDetails:
    """What answers these operations; models that embed, the default one first."""

    def __init__(
        self,
        models: Sequence[ModelInfo],
        local: Mapping[str, LocalDetails],
        callers: Callers,
        limits: InputLimits,
        watch: Watch,
        tokenizing: JobThread,
        *,
        max_batch_tokens: int,
        max_connections: int,
        started_at: int,
    ) -> None:
        """Prepare; `local` is by the models' own names, `started_at` is Unix time, seconds."""
        self._models = models
        self._by_name = {
            name: model for model in reversed(models) for name in (model.name, *model.aliases)
        }
        self._local = local
        self._callers = callers
        self._limits = limits
        self._watch = watch
        self._tokenizing = tokenizing
        self._max_batch_tokens = max_batch_tokens
        self._max_connections = max_connections
        self._started_at = datetime.fromtimestamp(started_at, UTC).isoformat()

    async def info(self, request: Request) -> Response:
        """Answer `INFO`; raises `Unauthorized`."""
        self._callers.identify(request.scope[VISIT].headers)
        model = self._models[0]
        details = self._local[model.name]
        return _json(
            Info(
                model_id=model.name,
                model_sha=model.fingerprint,
                model_dtype=details.dtype,
                model_type=ModelType(EmbeddingType(details.pooling)),
                max_input_length=model.max_tokens or 0,
                max_client_batch_size=self._limits.inputs,
                max_batch_tokens=self._max_batch_tokens,
                max_concurrent_requests=self._max_connections,
                tokenization_workers=1,
                auto_truncate=True,
                version=cacheproxy.__version__,
            )
        )

    async def tags(self, request: Request) -> Response:
        """Answer `OLLAMA_TAGS`; raises `Unauthorized`."""
        self._callers.identify(request.scope[VISIT].headers)
        return _json(OllamaTags([self._ollama_model(model) for model in self._models]))

    async def version(self, _: Request) -> Response:
        """Answer `OLLAMA_VERSION`."""
        return _json(OllamaVersion(cacheproxy.__version__))

    async def show(self, request: Request) -> Response:
        """Answer `OLLAMA_SHOW`; raises `Unauthorized` or `BadRequest`."""
        body = await self._read(request, "show", _MOST_SHOW_BYTES)
        model = self._model(parse_show(body))
        about = self._ollama_model(model)
        # Ollama's clients read the name of the architecture, and with it the fields of that name.
        known: dict[str, str | int] = {
            "general.architecture": "embedding",
            "embedding.embedding_length": model.dimensions,
        }
        if model.max_tokens is not None:
            known["embedding.context_length"] = model.max_tokens
        return _json(
            OllamaShowResponse(
                modelfile="",
                parameters="",
                template="",
                details=about.details,
                model_info=known,
                capabilities=["embedding"],
                modified_at=about.modified_at,
            )
        )

    async def tokenize(self, request: Request) -> Response:
        """Answer `TOKENIZE`; raises `Unauthorized` or `BadRequest`."""
        body = await self._read(request, "tokenize", _MOST_TOKENIZE_BYTES)
        asked = decode_json(_TOKENIZE, body)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        self._limits.check(texts)
        model = self._models[0] if asked.model is None else self._model(asked.model)
        details = self._local.get(model.name)
        if details is None:
            raise BadRequest("this model's tokenizer is not here", param="model")
        role = EmbeddingOptions(prompt_name=asked.prompt_name).role
        read = await details.reader.read(texts, role, model.name)
        prefixed = [text for text in read if isinstance(text, str)]
        cut = partial(details.pieces.cut, prefixed, with_specials=asked.add_special_tokens)
        tokens = await self._tokenizing.run(partial(_encode_tokens, cut))
        return Response(tokens, media_type="application/json")

    async def _read(self, request: Request, route: str, max_bytes: int) -> bytes:
        visit: Visit = request.scope[VISIT]
        visit.route, headers = route, visit.headers
        caller = self._callers.identify(headers)
        visit.namespace_id = caller.namespace.id
        account = self._callers.account_of(caller, request.scope.get("client"))
        with Watched(self._watch, request.receive, account, caller.meter) as exchange:
            body = await read_body(
                headers, request.receive, max_bytes=max_bytes, reserve=exchange.take
            )
            exchange.body_has_come()
            exchange.take_parsed(body)
        return body

    def _model(self, name: str) -> ModelInfo:
        model = self._by_name.get(name)
        if model is None:
            raise BadRequest(
                "no such model is served here", status=404, param="model", code="model_not_found"
            )
        return model

    def _ollama_model(self, model: ModelInfo) -> OllamaModel:
        details = self._local.get(model.name)
        return OllamaModel(
            name=model.name,
            model=model.name,
            modified_at=self._started_at,
            size=0 if details is None else details.size_bytes,
            digest=model.fingerprint,
            details=OllamaDetails(
                parent_model="",
                format="" if details is None else "onnx",
                family="embedding",
                families=("embedding",),
                parameter_size="",
                quantization_level="" if details is None else details.dtype,
            ),
        )


def _encode_tokens(cut: Callable[[], list[list[Any]]]) -> bytes:
    return msgspec.json.encode([[piece._asdict() for piece in text] for text in cut()])


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
