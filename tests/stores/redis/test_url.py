import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.stores.redis.url import ClusterNodes, SentinelPool, make_pool


def test_a_sentinel_url_says_where_the_sentinels_are_and_who_we_are():
    pool = make_pool(
        "redis+sentinel://proxy:p%40ss@one:1,two,[::1]:3/the%2Fcache/2"
        "?sentinel_username=watch&sentinel_password=w%40rd&client_name=us"
    )
    assert isinstance(pool, SentinelPool)
    assert pool.service_name == "the/cache"
    to_master = pool.connection_kwargs
    assert (to_master["username"], to_master["password"]) == ("proxy", "p@ss")
    assert (to_master["db"], to_master["client_name"]) == (2, "us")
    sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in sentinels] == [
        ("one", 1),
        ("two", 26_379),
        ("::1", 3),
    ]
    assert {(one["username"], one["password"]) for one in sentinels} == {("watch", "w@rd")}


def test_the_seeds_of_a_cluster_may_be_of_ipv6():
    nodes = ClusterNodes("redis+cluster://:secret@one,[::1]:3,[fe80::2]?client_name=us")

    assert nodes.seeds == [("one", 6_379), ("::1", 3), ("fe80::2", 6_379)]


def test_tls_is_for_the_master_and_for_the_sentinels():
    pool = make_pool("rediss+sentinel://one:1/cache?ssl_ca_certs=/ca.pem")
    (sentinel,) = (one.connection_pool for one in pool.sentinel_manager.sentinels)
    for connection in (pool.make_connection(), sentinel.make_connection()):
        assert connection.ssl_context.ca_certs == "/ca.pem"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://:secret@one:1", "must name a service"),
        ("redis+sentinel://:secret@one:1/", "must name a service"),
        ("redis+sentinel://:secret@one:1/cache/first", "database number"),
        ("redis+sentinel://:secret@one:1,:2/cache", "has no host"),
        ("redis+sentinel://:secret@/cache", "has no host"),
        ("redis+sentinel://:secret@one:x/cache", "an invalid port"),
        ("redis+sentinel://:secret@one:70000/cache", "an invalid port"),
        ("redis+sentinel://:sec/ret@one:1/cache", "store: "),
        ("redis+sentinel://:sec#ret@one:1/cache", "store: "),
        ("redis+sentinel://:secret@one:1/cache?no_option=1", "cannot be read"),
        ("redis://:secret@one:1?no_option=1", "cannot be read"),
        ("redis://:secret@one:port", "cannot be read"),
    ],
)
def test_a_mistake_in_a_url_is_told_in_one_line_without_its_password(url, says):
    with pytest.raises(ConfigError) as mistake:
        make_pool(url)
    said = str(mistake.value)
    assert says in said
    assert "\n" not in said
    assert "sec" not in said
