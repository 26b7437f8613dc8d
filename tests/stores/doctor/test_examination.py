"""The examination of a store: broken set-ups are named, each on a real server; sound ones pass."""

import json

import pytest
from certificates import Authority
from click.testing import CliRunner
from debian_programs import need_file
from redis_server import find_valkey, free_port
from redis_topology import wait_until

from cacheproxy.cli.main import main
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.doctor.examination import examine
from cacheproxy.stores.redis.index import ProbeIndex


async def examined(url: str, **more) -> dict[str, str]:
    """Return the levels and lines of all that is no "ok", by what was checked."""
    settings = Settings(store=url, **more)
    findings = [finding async for finding in examine(settings)]
    assert findings
    return {one.check: f"{one.level} {one.line}" for one in findings if one.level != "ok"}


@pytest.fixture(scope="module")
def sound(breakable_redis):
    """A Redis of this module's own as the documentation wants it."""
    with breakable_redis.client() as client:
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "volatile-ttl")
    return breakable_redis


@pytest.fixture
def plain(start_redis):
    """A Redis without the Query Engine."""
    return start_redis(search=False)


async def test_nothing_is_wrong_with_a_sound_redis_and_nothing_is_left_in_it(sound):
    assert await examined(sound.url) == {}
    with sound.client() as client:
        assert list(client.scan_iter("cp:e*")) == []
        assert client.execute_command("FT._LIST") == []


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_nothing_is_wrong_with_an_embedded_store(kind, tmp_path):
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/cache.sqlite"
    assert await examined(url) == {}


async def test_a_file_that_is_no_store_is_named_and_left_alone(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("a letter to a friend")
    found = await examined(f"sqlite:///{path}")
    assert "no SQLite file" in found["file"]
    assert path.read_text() == "a letter to a friend"


async def test_no_query_engine(plain):
    found = await examined(plain.url)
    assert found["query engine"].startswith("error")
    assert "no semantic tier" in found["query engine"]
    assert "no Query Engine" in found["found by probe"]
    assert list(await examined(plain.url, semantic={"mode": "off"})) == ["memory"]


async def test_an_index_of_the_wrong_type(sound):
    index = ProbeIndex("some model", 8)
    create = f"FT.CREATE {index.name} ON HASH PREFIX 1 cp:e3: SCHEMA namespace TAG tags TAG"
    kind = "VECTOR HNSW 6 TYPE FLOAT32 DIM 8 DISTANCE_METRIC L2"
    with sound.client() as client:
        client.execute_command(*f"{create} {index.field} {kind}".split())
        found = await examined(sound.url)
        assert client.execute_command("FT._LIST") == [index.name.encode()]
        client.ft(index.name).dropindex()
    assert list(found) == ["indexes"]
    assert f"FT.DROPINDEX {index.name}" in found["indexes"]


async def test_rights_that_the_user_lacks_are_all_named(sound):
    with sound.client() as client:
        rights = "~cp:* &cp:* +@all -ft.search -zadd -publish"
        client.execute_command(*f"ACL SETUSER weak on >secret {rights}".split())
        url = sound.url.replace("//", "//weak:secret@")
        assert "+zadd +publish +ft.search" in (await examined(url))["permissions"]
        client.execute_command(*["ACL", "SETUSER", "weak", "+@all", "resetkeys", "~other:*"])
        assert "~cp:*" in (await examined(url))["permissions"]
        client.execute_command(*["ACL", "SETUSER", "weak", "~cp:*", "resetchannels", "&other"])
        assert "&cp:*" in (await examined(url))["permissions"]
        client.execute_command("ACL", "DELUSER", "weak")
    assert "login was refused" in (await examined(url))["connection"]


async def test_the_rights_of_the_documentation_are_enough(sound, documented_acl):
    with sound.client() as client:
        client.execute_command(*documented_acl.split())
    url = sound.url.replace("//", "//cacheproxy:PASSWORD@")
    assert await examined(url) == {}


async def test_a_full_redis_that_evicts_nothing(start_redis):
    server = start_redis("--maxmemory", "1mb")
    found = await examined(server.url)
    assert found["memory"].startswith("error memory")
    assert "volatile-ttl" in found["memory"]
    assert "(oom)" in found["entries"]


async def test_a_replica_that_is_behind_and_a_replica_in_the_place_of_its_master(start_redis):
    master = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    with replica.client() as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    with master.client() as client:
        wait_until(lambda: client.info("replication")["slave0"]["state"] == "online")
    assert "replication" not in await examined(master.url)
    assert "a replica" in (await examined(replica.url))["replication"]
    replica.pause()
    with master.client() as client:
        client.set("cp:much", bytes(2**22))
    found = (await examined(master.url))["replication"]
    replica.resume()
    assert f"behind: 127.0.0.1:{replica.port}" in found

    second = start_redis("--replicaof", "127.0.0.1", str(master.port))
    with master.client() as client, second.client() as its:
        wait_until(lambda: its.info("replication")["master_link_status"] == "up")
        wait_until(lambda: {"online"} == _states_of_replicas(client))
        assert "min-replicas-to-write 1" in (await examined(master.url))["replication"]
        client.config_set("min-replicas-to-write", 1)
    assert "replication" not in await examined(master.url)


def _states_of_replicas(master) -> set[str]:
    told = master.info("replication")
    return {told[f"slave{n}"]["state"] for n in range(told["connected_slaves"])}


async def test_a_clock_that_is_five_seconds_off(start_redis):
    library = need_file("libfaketime", "usr/lib/*/faketime/libfaketimeMT.so.1")
    shift = {"LD_PRELOAD": str(library), "FAKETIME": "+5s", "DONT_FAKE_MONOTONIC": "1"}
    server = start_redis(environment=shift)
    found = await examined(server.url)
    assert "+5.0 s" in found["clock"]
    assert "before their end" in found["expiry"]


async def test_another_database_than_the_first(sound):
    found = await examined(sound.url.removesuffix("0") + "3")
    assert "database 3" in found["database"]
    assert found["found by probe"].startswith("error")


async def test_tls_on_one_side_only_and_a_certificate_that_is_not_trusted(start_redis, tmp_path):
    authority, port = Authority(tmp_path), free_port()
    certificate, private = authority.issue("redis")
    files = {"cert-file": certificate, "key-file": private, "ca-cert-file": authority.path}
    flags = [part for name, value in files.items() for part in (f"--tls-{name}", str(value))]
    server = start_redis(*flags, "--tls-port", str(port), "--tls-auth-clients", "no")
    found = await examined(f"rediss://127.0.0.1:{server.port}")
    assert "speaks no TLS" in found["connection"]
    assert "wants TLS" in (await examined(f"redis://127.0.0.1:{port}"))["connection"]
    assert "ssl_ca_certs" in (await examined(f"rediss://127.0.0.1:{port}"))["connection"]
    found = await examined(f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.path}")
    assert list(found) == ["memory"]


async def test_a_clusters_url_for_a_single_server_and_the_other_way_round(sound, redis_cluster):
    found = await examined(sound.url.replace("redis://", "redis+cluster://").removesuffix("/0"))
    assert "a single server" in found["connection"]
    found = await examined(redis_cluster.nodes[0].url)
    assert "redis+cluster://" in found["topology"]


async def test_a_cluster_is_examined_node_by_node_with_the_rights_of_the_documentation(
    redis_cluster, documented_acl, documented_acl_on_a_cluster
):
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, *documented_acl.split(), *documented_acl_on_a_cluster)
    url = redis_cluster.url.replace("//", "//cacheproxy:PASSWORD@")
    settings = Settings(store=url)
    findings = [finding async for finding in examine(settings)]
    assert {one.check for one in findings if one.level != "ok"} == {"memory"}, [
        one for one in findings if one.level != "ok"
    ]
    nodes = {f"127.0.0.1:{node.port}" for node in redis_cluster.nodes}
    assert {one.node for one in findings if one.check == "permissions"} == nodes
    assert all(redis_cluster.ask(node, "FT._LIST") == [] for node in redis_cluster.nodes)
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, "ACL", "SETUSER", "cacheproxy", "-eval")
    assert "+eval" in (await examined(url))["permissions"]


async def test_valkey_without_search(start_redis):
    server = start_redis(search=False, server=find_valkey())
    found = await examined(server.url)
    assert "Valkey 9" in found["version"]
    assert "no semantic tier" in found["query engine"]


def test_the_command_tells_each_finding_in_a_line_and_exits_with_1_if_any_is_an_error(
    sound, plain, monkeypatch
):
    monkeypatch.setenv("CACHEPROXY_STORE", sound.url)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "ok      found by probe: all that were written" in done.output.splitlines()
    monkeypatch.setenv("CACHEPROXY_STORE", plain.url)
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["is_broken"]
    assert {"query engine", "write"} <= {finding["check"] for finding in told["findings"]}
