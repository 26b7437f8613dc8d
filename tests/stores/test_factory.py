import subprocess
import sys

import pytest

from cacheproxy.settings.sources import load_settings
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.factory import make_store
from cacheproxy.stores.redis.cluster import ClusterStore
from cacheproxy.stores.redis.store import RedisStore


@pytest.mark.parametrize(
    ("store", "kind"),
    [
        (None, EmbeddedStore),
        ("memory://", EmbeddedStore),
        ("redis://127.0.0.1:1", RedisStore),
        ("rediss://user:word@example.org", RedisStore),
        ("unix:///run/redis.sock", RedisStore),
        ("redis+sentinel://127.0.0.1:1/cache", RedisStore),
        ("redis+cluster://127.0.0.1:1", ClusterStore),
    ],
)
def test_the_settings_choose_the_store(tmp_path, store, kind):
    settings = load_settings({"home": tmp_path, **({"store": store} if store else {})}, None)
    assert isinstance(make_store(settings), kind)


def test_what_only_some_servers_use_is_not_loaded_by_all():
    code = "import sys, cacheproxy.server.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert "cacheproxy.stores.embedded.store" in done.stdout.split()
    assert not {"redis", "hiredis", "redisvl", "aiohttp"} & set(done.stdout.split())
