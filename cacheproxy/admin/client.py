"""Implements `cacheproxy stats` and `cacheproxy purge`, on the store itself or through a server.

A store that other processes can reach is used directly: every server on it is notified of purges. A
store in memory can only be reached through its server's admin listener.
"""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cacheproxy.admin.report import (
    Target,
    describe_store,
    describe_thresholds,
    read_accounts,
)
from cacheproxy.errors import CacheproxyError, ConfigError, ModelError
from cacheproxy.inference.input import Input, Pair
from cacheproxy.keys import Namespace
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.factory import make_store
from cacheproxy.stores.protocol import Progress, Store
from cacheproxy.thresholds.certified import Account
from cacheproxy.thresholds.promise import promise_of

if TYPE_CHECKING:
    from cacheproxy.modelkit.install import InstalledModel
    from cacheproxy.modelkit.manifest import Kind

T = TypeVar("T")

_ANY_SIZE = 2**62

_ASK_S = 600.0


class AdminError(CacheproxyError):
    """The server refused a command; the message is the server's."""


def fetch_stats(settings: Settings) -> dict[str, Any]:
    """Return the figures of a running server and its store, or of the store alone.

    Raises:
        ConfigError: there is no such store.
        AdminError: the server refused.
        StoreError: the store did not answer.
    """
    try:
        return _ask_server(settings, "stats", None)
    except ConnectionError:
        if settings.is_in_memory:
            raise ConfigError(_unreachable(settings)) from None

    async def describe(store: Store) -> dict[str, Any]:
        accounts: list[Account] = []
        promise = promise_of(settings.semantic)
        for model, fingerprint in _probe_fingerprints(settings).items():
            accounts += await read_accounts(store, model, fingerprint, promise, settings.api_keys)
        return {
            "store": await describe_store(store, settings),
            "semantic": describe_thresholds(settings, accounts),
        }

    return on_store(settings, describe)


def purge(
    settings: Settings, namespace: Namespace, target: Target, progress: Progress | None
) -> int:
    """Purge the named entries; return how many were removed.

    Raises:
        ConfigError: there is no such store.
        BadRequest: not exactly one of key, text, tag and all is given, or a query without a text.
        ModelError: a text is named, and its model is not installed.
        AdminError: the server refused.
        StoreError: the store did not answer; the purge has to be repeated.
    """
    if settings.is_in_memory:
        order = {"tenant": namespace.tenant, "namespace": namespace.name}
        named = {field: getattr(target, field) for field in target.__struct_fields__}
        try:
            answer = _ask_server(settings, "purge", {**order, **named})
        except ConnectionError:
            raise ConfigError(_unreachable(settings)) from None
        return int(answer["removed"])
    scopes = target.scopes(namespace.id, lambda *which: _keys_of(settings, *which))

    async def purge_all(store: Store) -> int:
        return sum([await store.purge(scope, progress) for scope in scopes])

    return on_store(settings, purge_all)


def _probe_fingerprints(settings: Settings) -> dict[str, str]:
    """Return the fingerprints under which evidence is kept, by local model; none if none is."""
    if settings.semantic.mode == "off" or settings.semantic.threshold is not None:
        return {}
    try:
        from cacheproxy.modelkit.probing import make_probe

        return {
            installed.name: f"{installed.fingerprint}:{make_probe(settings, installed).name}"
            for installed in _installed(settings, "embeddings")
        }
    except ModelError:
        return {}


def _installed(settings: Settings, kind: "Kind") -> "list[InstalledModel]":
    # Imported only where they are needed: models are heavy.
    from cacheproxy.modelkit.install import load_all

    return load_all(settings.model, settings.home, settings.device, kind)


def _keys_of(settings: Settings, namespace_id: str, given: Input) -> list[bytes]:
    from cacheproxy.inference.pairs import PairTokenizer
    from cacheproxy.inference.tokenizer import Tokenizer
    from cacheproxy.routes.form import EMBEDDINGS, local_key
    from cacheproxy.routes.scores import SCORES

    keys, is_pair = [], isinstance(given, Pair)
    route = SCORES.route if is_pair else EMBEDDINGS.route
    for installed in _installed(settings, "rerank" if is_pair else "embeddings"):
        tokenizer = (
            PairTokenizer(installed.tokenizer_json, installed.max_tokens, installed.segment_offset)
            if is_pair
            else Tokenizer(installed.tokenizer_json, installed.max_tokens)
        )
        keys.append(local_key(route, tokenizer, installed.fingerprint, namespace_id, given))
    return keys


def on_store(
    settings: Settings,
    work: Callable[[Store], Awaitable[T]],
    *,
    may_create: bool = False,
    is_indexing: bool = True,
) -> T:
    """Return the result of work on the store itself, beside the servers that use it.

    Raises:
        ConfigError: there is no such store, and it may not be created.
        StoreError: the store cannot be opened.
    """
    path = settings.store_path
    if not may_create and settings.redis_url is None and path is not None and not path.is_file():
        raise ConfigError(f"store: there is no file {path}")

    async def run() -> T:
        # This process must not evict entries that the server keeps by its own settings.
        cache = settings.cache.model_copy(update={"store_bytes": _ANY_SIZE})
        unlimited = settings.model_copy(update={"cache": cache, "tenants": {}})
        store = make_store(unlimited, is_indexing=is_indexing)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _ask_server(settings: Settings, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Return the admin listener's answer; raises ConnectionError if no server listens."""
    admin = settings.admin
    if not admin.port:
        raise ConnectionError
    host = f"[{admin.host}]" if ":" in admin.host else admin.host
    url = f"{'https' if settings.is_admin_tls else 'http'}://{host}:{admin.port}/admin/{path}"
    request = urllib.request.Request(  # noqa: S310
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    if admin.token is not None:
        request.add_header("Authorization", f"Bearer {admin.token.get_secret_value()}")
    # Proxies from the environment must not be used for the server's own port.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_ASK_S) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise AdminError(_message(error)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError):
            raise error.reason from None
        raise AdminError(f"{request.full_url}: {error.reason}") from None
    return answer


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return f"{error.url}: {json.load(error)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.url}: {error}"


def _unreachable(settings: Settings) -> str:
    if not settings.admin.port:
        return "store: a store in memory is reached through the server's admin.port, which is unset"
    return f"admin.port: no server listens on {settings.admin.host}:{settings.admin.port}"
