"""What goes into a route and what comes out of it: plain data, shared with the HTTP edge.

Objects that every request creates are named tuples: a frozen dataclass takes four times as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from cacheproxy.inference.input import Input
from cacheproxy.keys import Namespace
from cacheproxy.records import EmbeddingRecord, Record
from cacheproxy.tiers.hot import HotEntry

R = TypeVar("R", bound=Record)

Outcome = Literal["hot", "exact", "semantic", "miss"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of items: it embeds texts, or scores documents for a query.

    Attributes:
        name, aliases: under which clients ask for it.
        fingerprint: changes whenever its results may have changed.
        dimensions: length of its vectors; 1 for scores.
        matryoshka: smaller dimensions that it was trained to be cut to; None: not known.
        max_tokens: longest input, special tokens counted; None: not known.
    """

    name: str
    aliases: tuple[str, ...]
    fingerprint: str
    dimensions: int
    matryoshka: tuple[int, ...] | None = None
    max_tokens: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether this process can infer it."""
        return self.max_tokens is not None


@dataclass(frozen=True, slots=True)
class Control:
    """What a request asks of the cache (RFC 9111 directives and X-Cacheproxy-* headers).

    Attributes:
        no_cache: skip all lookups, but refresh the entry.
        no_store: skip all lookups and store nothing.
        only_if_cached: fail with `NotCached` rather than infer.
        max_age_s: refuse entries that are older, seconds.
        semantic: whether semantic hits are allowed.
        stale_if_error_s: if the upstream fails, serve entries that expired at most so long ago.
        min_similarity: least score of a semantic hit, 0 to 1, on top of the threshold.
        ttl_s: time to live of the entries that this request makes, seconds.
        tags: names under which those entries can be purged.
        read_only: store nothing, though cached entries may answer; the caller's key says so.
        variant: which of a model and its canary is to answer; None: as the caller's share says.
        keeps: whether what is computed for the request may be stored, and shared with others.
        reads: whether cached entries may answer.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None
    stale_if_error_s: float | None = None
    semantic: bool = True
    min_similarity: float | None = None
    ttl_s: float | None = None
    tags: tuple[str, ...] = ()
    read_only: bool = False
    variant: Literal["canary", "stable"] | None = None
    keeps: bool = field(init=False)
    reads: bool = field(init=False)

    def __post_init__(self) -> None:
        """Decide once what each tier asks."""
        object.__setattr__(self, "keeps", not (self.no_store or self.read_only))
        object.__setattr__(self, "reads", not (self.no_cache or self.no_store))


DEFAULT_CONTROL = Control()
"""The control of every request that sends no header about the cache."""


class ItemsRequest(NamedTuple):
    """Inputs, at least one."""

    namespace: Namespace
    inputs: Sequence[Input]
    control: Control


class Served(NamedTuple, Generic[R]):
    """The result for one input.

    Attributes:
        record: the result and when it was made.
        outcome: the tier that answered, or "miss" for inference.
        hot_entry: where rendered forms of the record may be kept, or None.
        score: the neighbour's score, for a semantic hit.
        collapsed: whether it joined an inference that another request had begun.
        is_stored: whether what was inferred for it is on its way into the store.
    """

    record: R
    outcome: Outcome
    hot_entry: HotEntry[R] | None = None
    score: float | None = None
    collapsed: bool = False
    is_stored: bool = False


class ItemsResult(NamedTuple, Generic[R]):
    """The results in the order of the inputs, and the seconds that each stage took."""

    served: list[Served[R]]
    stages_s: dict[str, float]


ServedEmbedding = Served[EmbeddingRecord]
EmbeddingsResult = ItemsResult[EmbeddingRecord]
