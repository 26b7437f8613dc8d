"""Fuzz targets: one function for each parser that sees bytes from outside, by name.

A target takes any bytes. It returns if the parser did what it promises, also where that is to
refuse, and raises anything else: a crash, or a broken promise. `python tests/fuzz/run.py` drives
them by coverage; `tests/fuzz/test_fuzz.py` runs the kept inputs and a short search.
"""

from collections.abc import Callable

from fuzzing.answers import completion_answer, embeddings_answer, event_stream, judge_reply
from fuzzing.connection import http_connection
from fuzzing.files import labelled_texts, recording, redis_url, settings_file
from fuzzing.requests import (
    completion_body,
    embeddings_body,
    header_lines,
    operator_body,
    question,
    rerank_body,
    token_ids,
)
from fuzzing.stored import completion_record, embedding_record, evidence, notice, search_reply

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        completion_answer,
        completion_body,
        completion_record,
        embedding_record,
        embeddings_answer,
        embeddings_body,
        event_stream,
        evidence,
        header_lines,
        http_connection,
        judge_reply,
        labelled_texts,
        notice,
        operator_body,
        question,
        recording,
        redis_url,
        rerank_body,
        search_reply,
        settings_file,
        token_ids,
    )
}
