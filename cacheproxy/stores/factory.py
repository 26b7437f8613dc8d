"""Which store the settings name."""

import math
from functools import partial

from cacheproxy.errors import ConfigError
from cacheproxy.settings.secrecy import decoded
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.tenants import Tenants
from cacheproxy.stores.embedded.shares import StoreTerms
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Store


def make_store(settings: Settings, *, is_indexing: bool = True) -> Store:
    """Return the store, not yet opened; without indexing it only serves to write and to read.

    Raises:
        ConfigError: its URL cannot be read, or a library is missing.
    """
    store = _make_plain(settings, is_indexing)
    if settings.encryption.keys is None:
        return store
    try:
        from cacheproxy.stores.encrypted import EncryptedStore, RecordCipher
    except ImportError:
        raise ConfigError("encryption.keys: pip install 'cacheproxy[encryption]'") from None
    return EncryptedStore(store, RecordCipher(decoded(settings.encryption.keys)))


def _make_plain(settings: Settings, is_indexing: bool) -> Store:
    if settings.redis_url is None:
        return EmbeddedStore(
            settings.store_path,
            max_bytes=settings.cache.store_bytes,
            terms=partial(_terms, Tenants(settings.tenants)),
            is_indexing=is_indexing,
        )
    # Imported only if it is used: it takes 75 ms and 9 MB (measured).
    if settings.is_cluster:
        from cacheproxy.stores.redis.cluster import ClusterStore

        return ClusterStore(settings.redis_url, deadline_s=settings.cache.deadline_ms / 1000)
    from cacheproxy.stores.redis.store import RedisStore

    return RedisStore(settings.redis_url)


def _terms(tenants: Tenants, owner: str) -> StoreTerms:
    given = tenants.of(owner)
    return StoreTerms(
        given.share,
        math.inf if given.store_entries is None else given.store_entries,
        math.inf if given.store_bytes is None else given.store_bytes,
    )
