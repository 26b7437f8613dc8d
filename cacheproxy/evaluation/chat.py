"""Traffic of a chat route whose upstream answers by group: a group of questions shares one answer.

A question's "true vector" represents its answer: equal within a group, different between groups.
Questions with different signatures are never each other's neighbours, as in the real tier.
"""

from collections.abc import Sequence

import numpy as np

from cacheproxy.evaluation.judged_replay import JudgedTraffic
from cacheproxy.evaluation.replay import Traffic
from cacheproxy.evaluation.study import Encoders, Progress, embed
from cacheproxy.evaluation.traffic import Request, Texts
from cacheproxy.routes.chat.signature import signature_of
from cacheproxy.settings.sections import ChatSettings
from cacheproxy.thresholds.judged.question_pair import Rarity
from cacheproxy.thresholds.promise import Promise

_BITS = 64

SAME_ANSWER = 1.0
"""The similarity of questions with one answer; of others it is 0."""


def promise_of_chat(chat: ChatSettings) -> Promise:
    """Return the promise of the settings, for labels that are always correct."""
    return Promise(
        max_error=chat.max_error,
        confidence=chat.confidence,
        min_similarities=(SAME_ANSWER,),
        least_checks=_LEAST_CHECKS,
        most_checks=_MOST_CHECKS,
    )


_LEAST_CHECKS, _MOST_CHECKS = 0.02, 0.25
"""Shares of hits that are checked: an answer costs more than a vector."""


def make_chat_traffic(
    requests: Sequence[Request],
    ids: Sequence[Sequence[int]],
    texts: Texts,
    encoders: Encoders,
    *,
    min_tokens: int,
    progress: Progress,
) -> Traffic:
    """Return the traffic of requests, of which `ids` are the token ids.

    The exact tier knows a question by its characters, so that each wording is a text of its own.
    """
    numbers: dict[str, int] = {}
    order = [numbers.setdefault(request.text, len(numbers)) for request in requests]
    _, first = np.unique(order, return_index=True)
    of_texts = [tuple(ids[request]) for request in first]
    probes, _ = embed(of_texts, encoders, work=None, progress=progress)
    groups = texts.joined_groups()
    signatures: dict[bytes, int] = {}
    contexts = [signatures.setdefault(signature_of(text), len(signatures)) for text in numbers]
    return Traffic(
        requests=np.array(order, np.int64),
        vectors=_answers([groups[requests[request].source] for request in first]),
        probes=probes,
        is_long=np.array([len(one) >= min_tokens for one in of_texts]),
        contexts=np.array(contexts, np.int64),
    )


def make_judged_traffic(
    requests: Sequence[Request], texts: Texts, traffic: Traffic, rarity: Rarity
) -> JudgedTraffic:
    """Return traffic (as `make_chat_traffic` makes it of the same requests) for a judged replay."""
    words = list(dict.fromkeys(request.text for request in requests))
    _, first = np.unique(traffic.requests, return_index=True)
    groups = texts.joined_groups()
    of_texts = np.array([groups[requests[request].source] for request in first], np.int64)
    return JudgedTraffic(traffic, words, of_texts, rarity)


def _answers(groups: Sequence[int]) -> np.ndarray:
    """Return float32 [texts, 64] unit rows; the product of two is exactly 1 for the same group."""
    rng = np.random.default_rng(0)
    signs = rng.choice(np.array([-1, 1], np.float32), (max(groups) + 1, _BITS))
    if len(np.unique(signs, axis=0)) < len(signs):
        raise AssertionError("the same answer was drawn for two groups")
    rows: np.ndarray = signs[list(groups)] / np.float32(_BITS**0.5)
    return rows
