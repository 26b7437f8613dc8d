"""What operators ask of a cache, whether over HTTP or on the command line: figures, and purges."""

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cacheproxy.errors import BadRequest
from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, KEY_BYTES, Namespace, hex_id
from cacheproxy.settings.sections import Settings
from cacheproxy.stores.protocol import Store
from cacheproxy.stores.purges import Scope
from cacheproxy.thresholds.certified import Account
from cacheproxy.thresholds.earned import EarnedThresholds, Standing
from cacheproxy.thresholds.ledger import Ledger
from cacheproxy.thresholds.promise import Promise
from cacheproxy.thresholds.sharing import evidence_name

_HEX_KEY = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")

KeysOf = Callable[[str, str], Sequence[bytes]]
"""Gives the keys of a text in the namespace with an id, one for each model."""


class Target(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What of a namespace is to be purged; exactly one of these.

    Attributes:
        key: an entry's key in hex.
        text: a text whose entry is meant.
        tag: a tag of the entries that are meant.
        all: whether every entry is.
    """

    key: str | None = None
    text: str | None = None
    tag: str | None = None
    all: bool = False

    def scopes(self, namespace_id: str, keys_of: KeysOf) -> list[Scope]:
        """Return the purges to be made.

        Raises:
            BadRequest: nothing is named, or more than one thing, or the key is not one.
        """
        named = [self.key is not None, self.text is not None, self.tag is not None, self.all]
        if sum(named) != 1:
            raise BadRequest("name what to purge: one of key, text, tag and all")
        if self.text is not None:
            return [Scope(namespace_id, key=key) for key in keys_of(namespace_id, self.text)]
        if self.key is not None:
            if not _HEX_KEY.fullmatch(self.key):
                raise BadRequest(f"a key is {2 * KEY_BYTES} hex digits", param="key")
            return [Scope(namespace_id, key=bytes.fromhex(self.key))]
        return [Scope(namespace_id, tag=self.tag)]


def describe_thresholds(settings: Settings, accounts: Iterable[Account]) -> dict[str, Any]:
    """Return what is promised of semantic hits, and how far each namespace is, for JSON."""
    semantic = settings.semantic
    named = _default_namespaces(settings.api_keys)
    return {
        "mode": settings.semantic_mode,
        "fixed_threshold": semantic.threshold,
        "max_error": semantic.max_error,
        "confidence": semantic.confidence,
        "min_similarity": semantic.min_similarity,
        "namespaces": [_describe_account(account, named) for account in accounts],
    }


def describe_chat_thresholds(
    settings: Settings, accounts: Mapping[str, Iterable[Account]]
) -> dict[str, Any]:
    """Return the same of completions; `accounts` are by model."""
    named = _default_namespaces(settings.api_keys)
    return {
        "mode": settings.chat.semantic,
        "max_error": settings.chat.max_error,
        "confidence": settings.chat.confidence,
        "models": {
            model: {"namespaces": [_describe_account(account, named) for account in of_model]}
            for model, of_model in accounts.items()
        },
    }


def _describe_account(account: Account, named: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    namespace = hex_id(account.namespace_id)
    return {
        "id": namespace,
        **named.get(namespace, {}),
        "is_aside": account.is_aside,
        "hits": account.hits,
        "spared_s": round(account.spared_s, 3),
        "alarms": account.alarms,
        "thresholds": [_describe(standing) for standing in account.standings],
    }


def _describe(standing: Standing) -> dict[str, Any]:
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
    store: Store, fingerprint: str, promise: Promise, tenants: Iterable[str]
) -> list[Account]:
    """Return how the default namespaces of the tenants stand by the evidence in a store.

    Args:
        store: it must be open.
        fingerprint: of the model and its probe.
        promise: what the evidence is held against.
        tenants: besides the default one.

    Raises:
        StoreError: the store did not answer.
    """
    accounts = []
    for tenant in (DEFAULT_TENANT, *tenants):
        namespace_id = Namespace(tenant, DEFAULT_NAMESPACE).id
        state = await store.read_state(evidence_name(fingerprint, promise, namespace_id))
        ledger = Ledger.unpack(state, promise.min_similarities) if state else None
        if ledger is not None:
            earned = EarnedThresholds(promise, random=random.random, ledger=ledger)
            accounts.append(Account(namespace_id, earned.standings()))
    return accounts


async def describe_store(store: Store, kind: str, tenants: Iterable[str]) -> dict[str, Any]:
    """Return what the store holds, for JSON; the default namespaces of `tenants` have names.

    Namespaces are kept as hashes, so that the names of others cannot be told.

    Raises:
        StoreError: the store did not answer.
    """
    census = await store.census()
    named = _default_namespaces(tenants)
    fullest = sorted(census.namespaces.items(), key=lambda item: -item[1])
    return {
        "kind": kind,
        "entries": census.entries,
        "size_bytes": None if math.isnan(census.size_bytes) else int(census.size_bytes),
        "namespaces": [
            {"id": namespace, **named.get(namespace, {}), "entries": entries}
            for namespace, entries in fullest
        ],
    }


def _default_namespaces(tenants: Iterable[str]) -> dict[str, dict[str, str]]:
    return {
        hex_id(Namespace(tenant, DEFAULT_NAMESPACE).id): {
            "tenant": tenant,
            "namespace": DEFAULT_NAMESPACE,
        }
        for tenant in (DEFAULT_TENANT, *tenants)
    }
