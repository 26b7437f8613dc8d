"""Which store the settings name."""

from cacheproxy.errors import ConfigError
from cacheproxy.settings.secrecy import decoded
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Store


def make_store(settings: Settings) -> Store:
    """Return the store, not yet opened.

    Raises:
        ConfigError: its URL cannot be read, or a library is missing.
    """
    store = _make_plain(settings)
    if settings.encryption.keys is None:
        return store
    try:
        from cacheproxy.stores.encrypted import EncryptedStore, RecordCipher
    except ImportError:
        raise ConfigError("encryption.keys: pip install 'cacheproxy[encryption]'") from None
    return EncryptedStore(store, RecordCipher(decoded(settings.encryption.keys)))


def _make_plain(settings: Settings) -> Store:
    if settings.redis_url is None:
        return EmbeddedStore(settings.store_path, max_bytes=settings.cache.store_bytes)
    # Imported only if it is used: it takes 75 ms and 9 MB (measured).
    if settings.is_cluster:
        from cacheproxy.stores.redis.cluster import ClusterStore

        return ClusterStore(settings.redis_url)
    from cacheproxy.stores.redis.store import RedisStore

    return RedisStore(settings.redis_url)
