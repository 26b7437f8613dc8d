"""What a chat request carries on its way, and what comes of it: plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cacheproxy.routes.chat.flights import Reader
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.request import ChatRequest, Turn
from cacheproxy.routes.exchange import Control, Outcome
from cacheproxy.tiers.hot import HotEntry
from cacheproxy.tiers.semantic import Lookup
from cacheproxy.upstreams.client import Head


@dataclass(slots=True)
class Journey:
    """One request on its way.

    Attributes:
        request: what is asked.
        namespace_id: in whose part of the cache.
        control: what is asked of the cache.
        client: the headers of the request.
        scope: stands for who answers, and where callers' own keys are passed on, for whom.
        key: the exact tier's key; empty where the tiers take no part.
        turn: the last user turn and its context, if the semantic tier takes part.
        lookup: what that found, once it has looked.
        since: the moment (`Purges`) at which the tiers were first asked.
        stale: what the exact tiers have, after its time.
        stages_s: the seconds that each stage took.
    """

    request: ChatRequest
    namespace_id: str
    control: Control
    client: Mapping[bytes, bytes]
    scope: str
    key: bytes = b""
    turn: Turn | None = None
    lookup: Lookup[CompletionRecord] | None = None
    since: int = 0
    stale: "Cached | None" = None
    stages_s: dict[str, float] = field(default_factory=dict)


class Cached(NamedTuple):
    """An answer out of the cache.

    Attributes:
        record: the completion.
        outcome: the tier that had it.
        hot_entry: where rendered forms of it may be kept, or None.
        stages_s: the seconds that each stage took.
        score: the neighbour's, for a semantic hit.
        failed_with: the upstream's status, if that is why a stale record is served; 0 for none.
    """

    record: CompletionRecord
    outcome: Outcome
    hot_entry: HotEntry[CompletionRecord] | None
    stages_s: dict[str, float]
    score: float | None = None
    failed_with: int | None = None


class Passed(NamedTuple):
    """An answer that is passed on from an upstream.

    Attributes:
        head: how it begins.
        reader: gives its body; it must be left.
        is_bypass: whether the tiers took no part.
        collapsed: whether another request's call is read along.
        stages_s: the seconds that each stage took.
    """

    head: Head
    reader: Reader
    is_bypass: bool
    collapsed: bool
    stages_s: dict[str, float]
