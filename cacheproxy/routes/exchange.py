"""What goes into a pipeline and what comes out of it: plain data, between the HTTP edge and it.

What every request makes anew is a named tuple: a frozen dataclass takes four times as long to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cacheproxy.keys import Namespace
from cacheproxy.records import EmbeddingRecord
from cacheproxy.tiers.hot import HotEntry

Outcome = Literal["hot", "exact", "semantic", "miss"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What names a model and its vectors."""

    name: str
    aliases: tuple[str, ...]
    fingerprint: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Control:
    """What a request asks of the cache (RFC 9111 directives and X-Cacheproxy-* headers).

    Attributes:
        no_cache: look nothing up, but refresh the entry.
        no_store: look nothing up and store nothing.
        only_if_cached: fail with `NotCached` rather than infer.
        max_age_s: refuse entries that are older, seconds.
        semantic: whether a semantic hit is welcome.
        stale_if_error_s: if inference fails, serve what is stale for so long at most, seconds.
        min_similarity: a stricter demand on semantic hits, 0 to 1.
        ttl_s: life of the entries that this request makes, seconds.
        tags: names under which those entries may be purged.
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

    @property
    def reads(self) -> bool:
        """Whether cached entries may answer."""
        return not (self.no_cache or self.no_store)


DEFAULT_CONTROL = Control()
"""Of every request without a header of ours."""


class Request(NamedTuple):
    """Inputs to embed: each a text or a list of token ids, at least one."""

    namespace: Namespace
    inputs: Sequence[str | list[int]]
    control: Control


class Served(NamedTuple):
    """One text's answer.

    Attributes:
        record: the embedding and when it was made.
        outcome: the tier that answered, or "miss" for inference.
        hot_entry: where rendered forms of this vector may be kept, or None.
        score: the neighbour's score, for a semantic hit.
        collapsed: whether it joined an inference that another request had begun.
        is_stored: whether what was inferred for it is on its way into the store.
    """

    record: EmbeddingRecord
    outcome: Outcome
    hot_entry: HotEntry[EmbeddingRecord] | None = None
    score: float | None = None
    collapsed: bool = False
    is_stored: bool = False


class Answer(NamedTuple):
    """The answers in the order of the inputs, and the seconds that each stage took."""

    served: list[Served]
    stages_s: dict[str, float]
