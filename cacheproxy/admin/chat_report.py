"""The state of the semantic tier for chat: figures for JSON, and a sentence for each namespace."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from cacheproxy.keys import hex_id
from cacheproxy.thresholds.judged.namespaces import JudgedAccount, ModelAccount
from cacheproxy.thresholds.past import ThresholdChange

State = Literal["learning", "open", "suspended", "closed"]

Named = Mapping[str, tuple[str, str]]
"""Tenant and name of the namespaces that have one, by hashed id."""


class ChatNamespace(TypedDict):
    """One namespace of a chat model: its evidence, and what it permits."""

    id: Annotated[str, Meta(description="A hash of tenant and name.")]
    tenant: NotRequired[str]
    namespace: NotRequired[str]
    state: State
    story: Annotated[str, Meta(description="Its state and the reason, in a sentence.")]
    score: Annotated[str, Meta(description="What is compared: cosine, or learned.")]
    threshold: Annotated[
        float | None, Meta(description="The lowest score that is served; null while closed.")
    ]
    labels: int
    labels_needed: Annotated[
        int | None,
        Meta(description="About how many more labels to open; null if no number is enough."),
    ]
    error_estimate: float
    error_upper_bound: float
    false_rejects: Annotated[float, Meta(description="Right answers that the judge rejects.")]
    sensitivity: Annotated[float, Meta(description="Wrong answers that the judge rejects.")]
    sensitivity_lower_bound: float
    hits: int
    saved_s: Annotated[float, Meta(description="The upstream's time that hits saved, seconds.")]
    alarms: Mapping[str, int]
    changes: Annotated[
        Sequence[ThresholdChange],
        Meta(description="How the threshold moved, as this worker saw it since its start."),
    ]


class ChatModel(TypedDict):
    """A chat model: its judge, the costs of judging, and its namespaces."""

    judge: Annotated[str | None, Meta(description="Null: answers are compared, not judged.")]
    own_requests: Annotated[
        Mapping[str, int], Meta(description="The proxy's own requests, by purpose.")
    ]
    own_tokens: Mapping[str, int]
    own_cost_share: Annotated[
        float, Meta(description="Their cost as a share of what the clients' requests cost.")
    ]
    namespaces: list[ChatNamespace]


class ChatThresholds(TypedDict):
    """The promise about semantic hits for chat, and the state of each model."""

    mode: str
    fixed_threshold: Annotated[
        float | None, Meta(description="A threshold set by the operator; it carries no promise.")
    ]
    max_error: float
    confidence: float
    models: dict[str, ChatModel]


def describe_model(account: ModelAccount, named: Named, now: Callable[[], float]) -> ChatModel:
    """Return the state of a model; `now` returns Unix time, seconds."""
    allowance = account.allowance
    share = allowance.spent / allowance.clients_cost if allowance.clients_cost else 0.0
    return {
        "judge": account.judge,
        "own_requests": dict(allowance.requests.items()),
        "own_tokens": dict(allowance.tokens.items()),
        "own_cost_share": round(share, 5),
        "namespaces": [_describe(one, account, share, named, now()) for one in account.namespaces],
    }


def _describe(
    one: JudgedAccount, account: ModelAccount, share: float, named: Named, now: float
) -> ChatNamespace:
    standing, certificate = one.standing, one.standing.certificate
    needed = certificate.pairs_needed
    described: ChatNamespace = {
        "id": hex_id(one.namespace_id),
        "state": _state(one),
        "story": _story(one, account.judge, share, now),
        "score": standing.score,
        "threshold": None if standing.threshold is None else round(float(standing.threshold), 4),
        "labels": one.labels,
        "labels_needed": None if math.isinf(needed) else math.ceil(needed),
        "error_estimate": round(float(certificate.error), 5),
        "error_upper_bound": round(float(certificate.upper), 5),
        "false_rejects": round(float(standing.false_rejects), 5),
        "sensitivity": round(float(standing.sensitivity.rate), 5),
        "sensitivity_lower_bound": round(float(standing.sensitivity.lower), 5),
        "hits": one.hits,
        "saved_s": round(one.saved_s, 3),
        "alarms": one.alarms,
        "changes": one.changes,
    }
    if described["id"] in named:
        described["tenant"], described["namespace"] = named[described["id"]]
    return described


def _state(one: JudgedAccount) -> State:
    standing = one.standing
    if standing.aside is not None:
        return "closed"
    if standing.threshold is None:
        return "learning"
    return "suspended" if standing.is_suspended else "open"


def _story(one: JudgedAccount, judge: str | None, share: float, now: float) -> str:
    """Return the state of a namespace, in a sentence or two."""
    standing, certificate = one.standing, one.standing.certificate
    state = _state(one)
    if standing.aside is not None:
        return f"closed: {standing.aside}; {one.labels:,} labels so far"
    if state == "suspended":
        return (
            f"suspended: the judge rejects more of the hits than is promised; {one.hits:,} hits,"
            f" {one.labels:,} labels"
        )
    if state == "learning":
        return _learning(one, judge, now)
    told = (
        f"open: serves from {standing.score} score {standing.threshold:.3f};"
        f" {one.hits:,} hits, at most {certificate.upper:.1%} wrong by {certificate.labels:,.0f}"
        " labels"
    )
    if judge is not None:
        told += (
            f"; the judge {judge} sees {standing.sensitivity.rate:.0%} of wrong answers and"
            f" rejects {standing.false_rejects:.1%} of right ones; its requests cost {share:.1%}"
            f" of the clients', hits saved {one.saved_s:,.0f} s"
        )
    return told


def _learning(one: JudgedAccount, judge: str | None, now: float) -> str:
    needed = one.standing.certificate.pairs_needed
    told = f"learning: {one.labels:,} labels so far"
    if judge is None:
        told += " by comparing answers, without a judge: a model that rewords them never agrees"
    if not one.labels:
        return told
    if math.isinf(needed):
        certificate = one.standing.certificate
        if judge is not None and one.standing.sensitivity.lower <= 0:
            return f"{told}; how well the judge {judge} judges is still being measured"
        if certificate.labels and certificate.error < 1:
            error = certificate.error
            return f"{told}; no threshold is safe yet, the best one has {error:.1%} wrong"
        return told
    told += f", about {math.ceil(needed):,} more to open"
    if one.labels_per_s:
        ready = datetime.fromtimestamp(now + needed / one.labels_per_s, UTC)
        told += f", at this traffic by {ready:%Y-%m-%d %H:%M} UTC"
    return told
