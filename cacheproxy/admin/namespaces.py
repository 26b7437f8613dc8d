"""What each namespace asks for and what its hits save, in all workers, from the merged metrics."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from cacheproxy.admin.chat_report import Named
from cacheproxy.keys import SHORT_ID_CHARACTERS
from cacheproxy.telemetry.merged import Family, Sample

_PREFIX = "cacheproxy_namespace_"
_TIERS = ("hot", "exact", "semantic")

NAMES = frozenset(
    (
        f"{_PREFIX}answers_total",
        *(f"{_PREFIX}saved_{what}_total" for what in ("seconds", "tokens", "cost")),
        "cacheproxy_batch_texts_sum",
        "cacheproxy_inference_duration_seconds_sum",
    )
)
"""Names of the samples that `read_namespaces` reads."""


class NamespaceFigures(msgspec.Struct):
    """What one namespace asked of a model, and what its hits saved, in all workers."""

    model: str
    namespace: Annotated[
        str, Meta(description="The first 12 characters of its id; `other` sums up the rest.")
    ]
    tenant: Annotated[str | None, Meta(description="Where the settings name the namespace.")] = None
    name: str | None = None
    lookups: Annotated[int, Meta(description="Texts, or chat requests, that were looked up.")] = 0
    hits: Annotated[dict[str, int], Meta(description="Hits among those, by tier.")] = msgspec.field(
        default_factory=lambda: dict.fromkeys(_TIERS, 0)
    )
    spared_s: Annotated[
        float, Meta(description="Approximate inference time of a local model that hits saved, s.")
    ] = 0.0
    saved_s: Annotated[float, Meta(description="Upstream time that hits saved, seconds.")] = 0.0
    saved_tokens: int = 0
    saved_cost: float = 0.0


class Namespaces(msgspec.Struct):
    """The namespaces of every model, the busiest first."""

    namespaces: list[NamespaceFigures]


def read_namespaces(families: Iterable[Family], named: Named) -> list[NamespaceFigures]:
    """Return the figures of each model and namespace, the busiest first, with known names."""
    names = {namespace_id[:SHORT_ID_CHARACTERS]: name for namespace_id, name in named.items()}
    found: dict[tuple[str, str], NamespaceFigures] = {}
    inferred_s: dict[str, float] = defaultdict(float)
    inferred: dict[str, float] = defaultdict(float)
    for sample in (sample for family in families for sample in family.samples):
        name, model = sample.name, sample.labels.get("model", "")
        if name == "cacheproxy_batch_texts_sum":
            inferred[model] += sample.value
        elif name == "cacheproxy_inference_duration_seconds_sum":
            inferred_s[model] += sample.value
        elif name in NAMES:
            key = model, sample.labels["namespace"]
            _add(found.setdefault(key, NamespaceFigures(*key)), sample)
    for one in found.values():
        one.tenant, one.name = names.get(one.namespace, (None, None))
        if inferred[one.model]:
            mean_s = inferred_s[one.model] / inferred[one.model]
            one.spared_s = round(mean_s * sum(one.hits.values()), 4)
    return sorted(found.values(), key=lambda one: -one.lookups)


def _add(one: NamespaceFigures, sample: Sample) -> None:
    match sample.name.removeprefix(_PREFIX):
        case "answers_total":
            outcome, count = sample.labels["outcome"], int(sample.value)
            if outcome in _TIERS:
                one.hits[outcome] = count
            if outcome != "bypass":
                one.lookups += count
        case "saved_seconds_total":
            one.saved_s = round(sample.value, 4)
        case "saved_tokens_total":
            one.saved_tokens = int(sample.value)
        case "saved_cost_total":
            one.saved_cost = round(sample.value, 6)
