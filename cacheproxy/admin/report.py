"""Figures and purges for operators, over HTTP or on the command line."""

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from cacheproxy.admin.chat_report import ChatThresholds, Named, describe_model
from cacheproxy.admin.story import tell_story
from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Input, Pair
from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, KEY_BYTES, Namespace, hex_id
from cacheproxy.settings.sections import SemanticSettings
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.protocol import Store
from cacheproxy.stores.purges import Scope
from cacheproxy.thresholds.certified import Account
from cacheproxy.thresholds.earned import EarnedThresholds, Standing
from cacheproxy.thresholds.judged.namespaces import ModelAccount
from cacheproxy.thresholds.ledger import Ledger
from cacheproxy.thresholds.past import ThresholdChange
from cacheproxy.thresholds.promise import Promise
from cacheproxy.thresholds.sharing import SharedState, evidence_name
from cacheproxy.validation import convert

HexKey = Annotated[str, Meta(pattern=rf"^[0-9a-fA-F]{{{2 * KEY_BYTES}}}$")]

KeysOf = Callable[[str, Input], Sequence[bytes]]
"""Returns the keys of an input in the namespace with an id, one for each model of its kind."""


class Target(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The entries of a namespace to purge: exactly one of key, text, tag and all."""

    key: Annotated[HexKey | None, Meta(description="An entry's key in hex.")] = None
    text: Annotated[
        str | None, Meta(description="The text whose entries to purge, under every model.")
    ] = None
    query: Annotated[
        str | None,
        Meta(description="With a text: purge the score of this document for this query instead."),
    ] = None
    tag: Annotated[str | None, Meta(description="A tag of the entries to purge.")] = None
    all: Annotated[bool, Meta(description="Whether to purge every entry.")] = False

    @property
    def kind(self) -> str:
        """What names the entries, in a word, and nothing of their names."""
        named = {"key": self.key, "text": self.text, "tag": self.tag}
        return next((word for word, value in named.items() if value is not None), "all")

    def scopes(self, namespace_id: str, keys_of: KeysOf) -> list[Scope]:
        """Return the purges to be made.

        Raises:
            BadRequest: not exactly one is given, a query without a text, or the key is invalid.
        """
        if self.query is not None and self.text is None:
            raise BadRequest("a query is given with the text of its document", param="query")
        named = [self.key is not None, self.text is not None, self.tag is not None, self.all]
        if sum(named) != 1:
            raise BadRequest("exactly one of key, text, tag and all must be given")
        if self.text is not None:
            given = self.text if self.query is None else Pair(self.query, self.text)
            return [Scope(namespace_id, key=key) for key in keys_of(namespace_id, given)]
        if self.key is not None:
            key: str = convert(self.key, HexKey, "the key", param="key")
            return [Scope(namespace_id, key=bytes.fromhex(key))]
        return [Scope(namespace_id, tag=self.tag)]


class NamespaceThreshold(TypedDict):
    """The semantic tier's threshold for one min_similarity."""

    min_similarity: float
    state: Literal["closed", "suspended", "open"]
    threshold: Annotated[
        float | None, Meta(description="The lowest score that is served; null while closed.")
    ]
    labels: Annotated[float, Meta(description="Evidence, weighted by its age.")]
    error_estimate: float
    error_upper_bound: float
    pairs_needed: Annotated[
        int | None,
        Meta(description="Labels still needed to open; null if no number of them is enough."),
    ]


class NamespaceStanding(TypedDict):
    """A namespace's evidence about one model's vectors, and what it permits."""

    model: str
    id: Annotated[str, Meta(description="A hash of tenant and name.")]
    tenant: NotRequired[str]
    namespace: NotRequired[str]
    is_aside: Annotated[
        bool, Meta(description="Whether lookups are paused, because they cost more than they save.")
    ]
    hits: int
    spared_s: Annotated[float, Meta(description="Inference time that hits have saved, seconds.")]
    alarms: Mapping[str, int]
    story: Annotated[
        str, Meta(description="Its state for the default min_similarity and why, in a sentence.")
    ]
    changes: Annotated[
        Sequence[ThresholdChange],
        Meta(description="How that threshold moved, as this worker saw it since its start."),
    ]
    thresholds: list[NamespaceThreshold]


class Thresholds(TypedDict):
    """The promise about semantic hits for embeddings, and the state of each namespace."""

    mode: str
    fixed_threshold: Annotated[
        float | None, Meta(description="A threshold set by the operator; it carries no promise.")
    ]
    max_error: float
    confidence: float
    min_similarity: float
    namespaces: list[NamespaceStanding]
    chat: NotRequired[ChatThresholds]


class NamespaceEntries(TypedDict):
    """How many entries of a namespace the store holds."""

    id: Annotated[str, Meta(description="A hash of tenant and name.")]
    tenant: NotRequired[str]
    namespace: NotRequired[str]
    entries: int


class StoreFigures(TypedDict):
    """What the store holds."""

    kind: str
    entries: int
    size_bytes: Annotated[int | None, Meta(description="Null if the store does not count bytes.")]
    namespaces: Annotated[
        list[NamespaceEntries], Meta(description="Those with the most entries first.")
    ]


class HotFigures(TypedDict):
    """What this process holds in its hot tier."""

    entries: int
    size_bytes: int


class PurgeFigures(TypedDict):
    """The purges that this process knows of."""

    generation: int
    heard: Annotated[bool, Meta(description="Whether purges by other servers are received.")]


class ServerFigures(TypedDict):
    """A server's figures."""

    version: str
    models: list[str]
    lookups: Annotated[
        dict[str, dict[str, int]], Meta(description="Lookups of this process, by tier and result.")
    ]
    hot: HotFigures
    purges: PurgeFigures
    store: StoreFigures
    semantic: Thresholds


def describe_thresholds(settings: Settings, accounts: Iterable[Account]) -> Thresholds:
    """Return the promise about semantic hits, and the state of each namespace."""
    semantic = settings.semantic
    named = named_namespaces(settings)
    return {
        "mode": settings.semantic.mode,
        "fixed_threshold": semantic.threshold,
        "max_error": semantic.max_error,
        "confidence": semantic.confidence,
        "min_similarity": semantic.min_similarity,
        "namespaces": [_describe_account(account, semantic, named) for account in accounts],
    }


def describe_chat_thresholds(
    settings: Settings, accounts: Mapping[str, ModelAccount]
) -> ChatThresholds:
    """Return the same for completions; `accounts` are by model."""
    named = named_namespaces(settings)
    return {
        "mode": settings.chat.semantic,
        "fixed_threshold": settings.chat.threshold,
        "max_error": settings.chat.max_error,
        "confidence": settings.chat.confidence,
        "models": {
            model: describe_model(account, named, time.time) for model, account in accounts.items()
        },
    }


def _describe_account(
    account: Account, semantic: SemanticSettings, named: Named
) -> NamespaceStanding:
    namespace_id = hex_id(account.namespace_id)
    standing = next(
        one for one in account.standings if one.min_similarity == semantic.min_similarity
    )
    described: NamespaceStanding = {
        "model": account.model,
        "id": namespace_id,
        "is_aside": account.is_aside,
        "hits": account.hits,
        "spared_s": round(account.spared_s, 3),
        "alarms": account.alarms,
        "story": tell_story(account, standing, max_error=semantic.max_error, now=time.time()),
        "changes": account.changes,
        "thresholds": [_describe(standing) for standing in account.standings],
    }
    if namespace_id in named:
        described["tenant"], described["namespace"] = named[namespace_id]
    return described


def _describe(standing: Standing) -> NamespaceThreshold:
    state: Literal["closed", "suspended", "open"]
    if standing.threshold is None:
        state = "closed"
    else:
        state = "suspended" if standing.is_suspended else "open"
    return {
        "min_similarity": standing.min_similarity,
        "state": state,
        "threshold": standing.threshold,
        "labels": round(standing.labels, 1),
        "error_estimate": round(standing.error, 5),
        "error_upper_bound": round(standing.upper, 5),
        "pairs_needed": None if math.isinf(needed := standing.pairs_needed) else math.ceil(needed),
    }


async def read_accounts(
    store: Store, model: str, fingerprint: str, promise: Promise, tenants: Iterable[str]
) -> list[Account]:
    """Return the state of the tenants' default namespaces, by the evidence in a store.

    Args:
        store: it must be open.
        model: the model.
        fingerprint: of the model and its probe.
        promise: the promise to which the evidence is compared.
        tenants: the tenants besides the default one.

    Raises:
        StoreError: the store did not answer.
    """
    accounts = []
    for tenant in (DEFAULT_TENANT, *tenants):
        namespace_id = Namespace(tenant, DEFAULT_NAMESPACE).id
        state = await store.read_state(evidence_name(fingerprint, promise.kind, namespace_id))
        evidence = SharedState.unpack(state or b"").evidence
        ledger = Ledger.unpack(evidence, promise.min_similarities) if evidence else None
        if ledger is not None:
            earned = EarnedThresholds(promise, random=random.random, ledger=ledger)
            accounts.append(Account(model, namespace_id, earned.standings()))
    return accounts


async def describe_store(store: Store, settings: Settings) -> StoreFigures:
    """Return what the store holds; the namespaces that the settings name have names.

    Namespaces are stored as hashes, so other names are unknown.

    Raises:
        StoreError: the store did not answer.
    """
    census = await store.census()
    named = named_namespaces(settings)
    fullest = sorted(census.namespaces.items(), key=lambda item: -item[1])
    return {
        "kind": settings.store_kind,
        "entries": census.entries,
        "size_bytes": None if math.isnan(census.size_bytes) else int(census.size_bytes),
        "namespaces": [_entries(namespace_id, count, named) for namespace_id, count in fullest],
    }


def _entries(namespace_id: str, count: int, named: Named) -> NamespaceEntries:
    described: NamespaceEntries = {"id": namespace_id, "entries": count}
    if namespace_id in named:
        described["tenant"], described["namespace"] = named[namespace_id]
    return described


def named_namespaces(settings: Settings) -> Named:
    """Return the default namespaces of all tenants, and those that settings are about."""
    tenants = (DEFAULT_TENANT, *settings.api_keys, *settings.tenants)
    names = [(tenant, DEFAULT_NAMESPACE) for tenant in tenants]
    for by_tenant in (
        settings.namespace_ttl_s,
        settings.namespace_stale_s,
        settings.namespace_cache_tools,
        {tenant: one.namespace_limits for tenant, one in settings.tenants.items()},
    ):
        names += [(tenant, name) for tenant, given in by_tenant.items() for name in given]
    return {hex_id(Namespace(*one).id): one for one in names}
