"""A completion request on its way, and the two kinds of results: plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cacheproxy.routes.chat.likeness import Near
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.dialects.request import CompletionRequest, UserTurn
from cacheproxy.routes.exchange import Control, Outcome
from cacheproxy.tiers.hot import HotEntry
from cacheproxy.tiers.streamed import Reader
from cacheproxy.upstreams.head import Head


@dataclass(slots=True)
class CompletionState:
    """One request.

    Attributes:
        request: as it was parsed.
        namespace_id: the caller's namespace.
        control: what the request asks of the cache.
        client: the headers of the request.
        scope: names the upstream that answers and, where callers' keys are passed on, the caller.
        key: of its entry [32 bytes]; empty if the request bypasses the tiers.
        user_turn: the last user turn and its context, if the semantic tier takes part.
        near: what the semantic tier found, once it was asked.
        since: the moment (`Purges`) of the first lookup.
        stale: an expired record that the keyed tiers have, if it may still be served.
        stages_s: the seconds that each stage took.
    """

    request: CompletionRequest
    namespace_id: str
    control: Control
    client: Mapping[bytes, bytes]
    scope: str
    key: bytes = b""
    user_turn: UserTurn | None = None
    near: Near | None = None
    since: int = 0
    stale: "Cached | None" = None
    stages_s: dict[str, float] = field(default_factory=dict)


class Cached(NamedTuple):
    """A completion from the cache.

    Attributes:
        record: the completion.
        outcome: the tier that answered.
        hot_entry: where rendered forms of the record may be kept, or None.
        stages_s: the seconds that each stage took.
        score: the neighbour's score, for a semantic hit.
        failed_with: the upstream's status, if a stale record is served because of it; 0: no answer.
    """

    record: CompletionRecord
    outcome: Outcome
    hot_entry: HotEntry[CompletionRecord] | None
    stages_s: dict[str, float]
    score: float | None = None
    failed_with: int | None = None


class Passed(NamedTuple):
    """A response that is passed on from an upstream.

    Attributes:
        head: of the response.
        reader: reads its body; it must be left.
        is_bypass: whether the request bypassed the tiers.
        collapsed: whether it joined another request's call.
        stages_s: the seconds that each stage took.
    """

    head: Head
    reader: Reader[Head]
    is_bypass: bool
    collapsed: bool
    stages_s: dict[str, float]
