"""What upstreams answer: completions, streams of events, embeddings, a judge's word."""

from contextlib import suppress

import msgspec
import numpy as np
from items_harness import small_tokenizer

from cacheproxy.errors import ApiError, UpstreamFailed
from cacheproxy.inference.engine import Given
from cacheproxy.inference.input import Pair
from cacheproxy.records import EmbeddingRecord, pack
from cacheproxy.routes.dialects.chat import read_answer
from cacheproxy.routes.dialects.completion import Completion
from cacheproxy.routes.dialects.sse import EventCutter
from cacheproxy.routes.dialects.text import text_of
from cacheproxy.routes.judging.judge import _usage
from cacheproxy.thresholds.judged.asking import read_reply
from cacheproxy.upstreams.catalogue import _LIST
from cacheproxy.upstreams.embedding import UpstreamEngine
from cacheproxy.upstreams.head import Head
from cacheproxy.upstreams.item_calls import _refused
from cacheproxy.upstreams.reranking import UpstreamReranker
from fuzzing.requests import DIALECTS

_ENGINE = UpstreamEngine(None, "m", 2, small_tokenizer())  # type: ignore[arg-type]
_GIVENS = [Given("one", ()), Given("two", ())]
_RERANKER = UpstreamReranker(None, "m")  # type: ignore[arg-type]
_PAIRS = [Given(Pair("query", name), ()) for name in ("one", "two")]


def completion_answer(data: bytes) -> None:
    """A whole answer in each dialect: what is kept can be served again, whole and as a stream."""
    for dialect in DIALECTS:
        with suppress(UpstreamFailed):
            if (kept := dialect.read(data)) is not None:
                _check_kept(dialect, kept)


def _check_kept(dialect, kept: Completion) -> None:
    assert text_of(kept.body) == kept.text
    for with_usage in (False, True):
        events = dialect.replay(kept.body, with_usage=with_usage)
        assembler = dialect.assembler()
        cut = EventCutter().cut(events)
        assert assembler.take_all(cut) == len(cut)
        assert assembler.is_done


def event_stream(data: bytes) -> None:
    """A stream, in one piece and byte by byte: the same events, and nothing half is kept."""
    with suppress(UpstreamFailed):
        events = EventCutter().cut(data)
        cutter = EventCutter()
        pieces = [event for i in range(len(data)) for event in cutter.cut(data[i : i + 1])]
        assert b"".join(pieces) == b"".join(events)
        for dialect in DIALECTS:
            assembler = dialect.assembler()
            assembler.take_all(events)
            kept = assembler.completion()
            if kept is not None:
                assert assembler.is_done
                _check_kept(dialect, kept)
            dialect.error_event({"message": "m", "type": "t", "code": None, "param": None})


def embeddings_answer(data: bytes) -> None:
    """An upstream's embeddings or scores, its list of models, and its refusal."""
    for engine, givens in ((_ENGINE, _GIVENS), (_RERANKER, _PAIRS)):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            for result in engine._results(givens, data):
                assert np.isfinite(result.vector).all()
                vector = np.ascontiguousarray(result.vector, "<f4").tobytes()
                pack(EmbeddingRecord("00" * 16, bytes(32), 0, 1, result.tokens, vector))
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        for item in _LIST.decode(data).data:
            assert item.created is None or int(item.created) is not None
    retry = data[:8].strip()
    refused = _refused(Head(429, b"application/json", [(b"retry-after", retry)], "u"), data)
    assert isinstance(refused, ApiError)


def judge_reply(data: bytes) -> None:
    """A judge's answer: one of three readings, and counts that are counts."""
    with suppress(UpstreamFailed):
        answer = read_answer(data)
        assert all(count >= 0 for count in _usage(answer.get("usage"), 40))
        for choice in answer["choices"]:
            message = choice.get("message")
            content = message.get("content") if isinstance(message, dict) else None
            assert read_reply(content) in ("accept", "reject", "unreadable")
