"""What clients send: bodies of every dialect, header lines, token ids, questions."""

import json
from contextlib import suppress

import msgspec
from items_harness import small_tokenizer

from cacheproxy.admin.app import _PURGES as PURGE_DECODER
from cacheproxy.api.access.key_ring import KeyRing, hash_key
from cacheproxy.api.callers import Callers
from cacheproxy.api.control import parse_control
from cacheproxy.api.dialects.cohere_embed import CohereEmbedDialect
from cacheproxy.api.dialects.embed import EmbedDialect
from cacheproxy.api.dialects.ollama import (
    OllamaEmbedDialect,
    OllamaEmbeddingsDialect,
    parse_show,
)
from cacheproxy.api.dialects.openai import OpenAIDialect
from cacheproxy.api.dialects.protocol import InputLimits
from cacheproxy.api.dialects.rerank_forms import CohereDialect, JinaDialect, TeiDialect
from cacheproxy.api.dialects.tei import RootDialect, SimilarityDialect
from cacheproxy.api.litellm_control import merge_control, merge_namespace, read_cache_field
from cacheproxy.api.report import _DECODER as REPORT_DECODER
from cacheproxy.api.request.body import decode_json
from cacheproxy.api.request.header_fields import combined
from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import ApiError
from cacheproxy.inference.engine import Given
from cacheproxy.inference.input import Pair
from cacheproxy.inference.token_ids import TokenIds
from cacheproxy.keys import Namespace, key_scope
from cacheproxy.routes.chat.signature import signature_of
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.dialects.legacy import LegacyDialect
from cacheproxy.routes.dialects.messages import MessagesDialect
from cacheproxy.routes.dialects.responses import ResponsesDialect
from cacheproxy.routes.exchange import DEFAULT_CONTROL
from cacheproxy.telemetry.recorder import _inputs_of, _query_of
from cacheproxy.telemetry.request_trace import Visit
from cacheproxy.upstreams.embedding import UpstreamEngine
from cacheproxy.upstreams.reranking import UpstreamReranker

DIALECTS = (ChatDialect(), ResponsesDialect(), MessagesDialect(), LegacyDialect())
NAMESPACE = Namespace("tenant", "name")

_LIMITS = InputLimits(inputs=64, characters=4_096)
_TOKENIZER = small_tokenizer()
_SCOPE = key_scope(NAMESPACE.id, "embeddings", "f")
_CALLERS = Callers(KeyRing({"tenant": [hash_key("key")]}))


EMBEDDING_DIALECTS = (
    *(OpenAIDialect(), EmbedDialect(), RootDialect(), SimilarityDialect()),
    *(OllamaEmbedDialect(), OllamaEmbeddingsDialect()),
    CohereEmbedDialect(version="1"),
)


def embeddings_body(data: bytes) -> None:
    """Every embedding dialect, to the key of each input."""
    upstream = UpstreamEngine(None, "m", 4, _TOKENIZER)  # type: ignore[arg-type]
    for dialect in EMBEDDING_DIALECTS:
        with suppress(ApiError):
            asked = dialect.parse(data)
            _LIMITS.check(asked.inputs)
            for given in asked.inputs:
                with suppress(ApiError):
                    (ids,) = _TOKENIZER.read([given])
                    assert len(_SCOPE.of_ids(ids)) == 32
                with suppress(ApiError):
                    (ids,) = upstream.encode([given])
                    assert len(upstream.key_of(_SCOPE, Given(given, ids))) == 32
    with suppress(ApiError):
        parse_show(data)
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        body = msgspec.json.decode(data)
        _query_of(body)
        _inputs_of(body)


def rerank_body(data: bytes) -> None:
    """The three dialects of reranking, to the key of each pair."""
    upstream = UpstreamReranker(None, "m")  # type: ignore[arg-type]
    for dialect in (JinaDialect(), CohereDialect(), TeiDialect()):
        with suppress(ApiError):
            asked = dialect.parse(data)
            _LIMITS.check([asked.query], "query")
            _LIMITS.check(asked.documents, asked.param)
            for document in asked.documents:
                given = Given(Pair(asked.query, document, *asked.truncation), ())
                assert len(upstream.key_of(_SCOPE, given)) == 32
                upstream._write([given])


def completion_body(data: bytes) -> None:
    """The four dialects of completions, to what a request is looked up by."""
    for dialect in DIALECTS:
        with suppress(ApiError):
            request = dialect.parse(data, max_temperature=1)
            if request.bypass is None:
                assert request.canonical() == _again(dialect, request.body).canonical()
                turn = request.user_turn("scope")
                assert turn is None or len(turn.context) == 64
            plain = json.loads(request.plain_body())
            assert plain["model"] == request.model
            assert "stream" not in plain
            if request.cache:
                cache = read_cache_field(request.cache)
                merge_control(DEFAULT_CONTROL, cache)
                merge_namespace(NAMESPACE, cache)


def _again(dialect, body: bytes):
    return dialect.parse(body, max_temperature=1)


def header_lines(data: bytes) -> None:
    """Header lines, each `name: value`: what they ask of the cache, and whose request it is."""
    lines = [line.partition(b": ") for line in data.split(b"\n")]
    with suppress(ApiError):
        headers = combined((name.lower(), value) for name, _, value in lines)
        visit = Visit(headers)
        assert 0 < len(visit.request_id) <= 128
        passed = "".join(visit.passed_on().values())
        assert passed.isascii()
        assert passed.isprintable()
        control = parse_control(headers)
        assert headers.get(b"cache-control", b"").strip() != b"no-store" or control.no_store
        assert _CALLERS.identify(headers).namespace.tenant == "tenant"


def operator_body(data: bytes) -> None:
    """Orders to purge, and reports of wrong hits."""
    with suppress(ApiError):
        order = decode_json(PURGE_DECODER, data)
        for scope in order.scopes(Namespace(order.tenant, order.namespace).id, _keys_of):
            assert scope.key is None or len(scope.key) == 32
    with suppress(ApiError):
        key, _, score = decode_json(REPORT_DECODER, data).id.partition("-")
        assert len(bytes.fromhex(key)) == 32
        assert not score or int(score) >= 0


def _keys_of(namespace_id: str, text: str) -> list[bytes]:
    return [key_scope(namespace_id, "embeddings", "f").of_text(text)]


def token_ids(data: bytes) -> None:
    """Lists of ids, as JSON: own ids, those of OpenAI's vocabularies, or a refusal."""
    with suppress(ApiError):
        lists = [x for x in OpenAIDialect().parse(data).inputs if isinstance(x, list)]
        for name in ("own", "text-embedding-3-small") if lists else ():
            with suppress(ApiError):
                vocabulary, texts = _READER.tell(lists, name)
                assert len(texts) == len(lists)
                assert vocabulary != "own" or all(map(_TOKENIZER.accept, lists))


_READER = TokenIds(_TOKENIZER, JobThread("fuzzing"))


def question(data: bytes) -> None:
    """A question's signature: the same each time, whatever the text."""
    text = data.decode("utf-8", "replace")
    assert signature_of(text) == signature_of(text)
