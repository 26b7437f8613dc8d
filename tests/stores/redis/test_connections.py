"""Connections to Redis: who may connect, over what, how many, and whose answer is whose."""

import asyncio
import socket
import subprocess

import numpy as np
import pytest
from certificates import Authority
from names import Names
from redis.exceptions import ResponseError
from redis_entries import PARTITION, entries, failure_of, key, names_of, opened, until
from redis_server import free_port
from relay import Relay
from unit_probes import random_probes

from cacheproxy.errors import ConfigError, StoreError
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.store import RedisStore


async def test_answers_belong_to_their_questions_whatever_was_cancelled(start_redis):
    server = start_redis()
    chance = np.random.default_rng(7)
    rows = random_probes(60)
    async with Relay(server.port) as relay, opened(f"redis://127.0.0.1:{relay.port}") as store:
        await store.put_many(entries(range(60), probes=rows, size=5000))
        relay.delay_s, relay.piece_bytes = 0.001, 3000
        right = 0

        async def ask(n: int) -> None:
            nonlocal right
            if n % 3:
                asked = [(n + step) % 60 for step in range(chance.integers(1, 5))]
                records = await store.get_many([key(m) for m in asked])
                assert names_of(records) == [str(m) for m in asked]
            else:
                (found,) = await store.nearest(PARTITION, rows[n % 60][None])
                assert found.key == key(n % 60)
            right += 1

        async def ask_and_give_up(n: int) -> None:
            task = asyncio.create_task(ask(n))
            await asyncio.wait({task}, timeout=chance.choice([0.0005, 0.002, 0.004, 1]))
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

        for start in range(0, 600, 20):
            await asyncio.gather(*(ask_and_give_up(n) for n in range(start, start + 20)))
        assert right > 50
        relay.delay_s = 0.0
        for n in range(60):
            await ask(n)


async def test_a_call_cancelled_in_mid_reply_takes_its_connection_with_it(start_redis):
    server = start_redis()
    async with (
        Relay(server.port) as relay,
        opened(f"redis://127.0.0.1:{relay.port}", max_connections=1) as store,
    ):
        await store.put_many(entries(["a", "b"], size=200_000))
        assert relay.accepted <= 3
        before = relay.accepted
        relay.piece_bytes = 1000
        relay.delay_s = 0.005
        call = asyncio.create_task(store.get_many([key("a")]))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        relay.piece_bytes, relay.delay_s = 65536, 0.0
        assert names_of(await store.get_many([key("b")])) == ["b"]
        assert relay.accepted == before + 1


async def test_callers_that_soon_give_up_still_get_a_connection_in_the_end(start_redis):
    server = start_redis()
    async with Relay(server.port) as relay:
        relay.greeting_s = 0.2
        async with opened(f"redis://127.0.0.1:{relay.port}") as store:
            relay.cut()
            gave_up = 0

            async def answered():
                nonlocal gave_up
                try:
                    async with asyncio.timeout(0.05):
                        return await store.get_many([key("a")])
                except TimeoutError:
                    gave_up += 1

            assert await until(answered) == [None]
            assert gave_up


async def test_a_wrong_password_is_told_and_a_right_one_works(start_redis):
    user = ("--user", "proxy", "on", ">hunter2", "~cp:*", "&cp:*", "+@all")
    server = start_redis("--requirepass", "secret", *user)
    for login in ("", ":wrong@", "nobody:hunter2@"):
        async with opened(f"redis://{login}127.0.0.1:{server.port}") as store:
            assert await failure_of(store.get_many([key("a")])) == "noauth"
    for login in (":secret@", "proxy:hunter2@"):
        async with opened(f"redis://{login}127.0.0.1:{server.port}") as store:
            await store.put_many(entries(["a"], probes=random_probes(1)))
            assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


async def test_a_user_may_be_confined_to_the_commands_that_are_used(start_redis):
    commands = (
        "hget hmget hset del exists get set pexpireat multi exec watch unwatch scan time expire "
        "zadd zmscore zrange zremrangebyscore sadd srem smembers publish subscribe ping info wait "
        "ft.search ft.create ft.dropindex ft.info ft._list client|setinfo"
    )
    rules = [f"+{command}" for command in commands.split()]
    server = start_redis("--user", "proxy", "on", ">hunter2", "~cp:*", "&cp:*", *rules)
    async with opened(f"redis://proxy:hunter2@127.0.0.1:{server.port}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")
        await store.put_many(entries(["a"]))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert (await store.census()).size_bytes > 0
        assert await store.purge(Scope(PARTITION.namespace_id, tag="t")) == 0
        assert await store.purge(Scope(PARTITION.namespace_id, key=key("a"))) == 1
    with pytest.raises(ResponseError):
        server.client(username="proxy", password="hunter2").flushall()


async def test_a_unix_socket_does_as_well(start_redis):
    server = start_redis()
    async with opened(f"unix://{server.socket}") as store:
        await store.put_many(entries(["a"]))
        assert names_of(await store.get_many([key("a")])) == ["a"]


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 and its key."""
    certificate, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(private), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return certificate, private


async def test_tls_works_with_a_known_certificate_and_only_then(start_redis, certificate):
    public, private = certificate
    port = free_port()
    tls = {"port": port, "cert-file": public, "key-file": private, "ca-cert-file": public}
    flags = [part for name, value in tls.items() for part in (f"--tls-{name}", str(value))]
    start_redis(*flags, "--tls-auth-clients", "no")
    async with opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={public}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")
    async with opened(f"rediss://127.0.0.1:{port}") as store:
        assert await failure_of(store.get_many([key("a")])) == "connection"


async def test_a_redis_that_demands_a_certificate_gets_one(start_redis, tmp_path):
    authority = Authority(tmp_path)
    certificate, private = authority.issue("redis")
    port = free_port()
    tls = {"port": port, "cert-file": certificate, "key-file": private}
    tls |= {"ca-cert-file": authority.path, "auth-clients": "yes"}
    start_redis(*(part for name, value in tls.items() for part in (f"--tls-{name}", str(value))))
    own, own_key = authority.issue("proxy")
    trust = f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.path}"
    async with opened(f"{trust}&ssl_certfile={own}&ssl_keyfile={own_key}") as store:
        await store.put_many(entries(["a"]))
        assert names_of(await store.get_many([key("a")])) == ["a"]
    async with opened(trust) as store:
        assert await failure_of(store.get_many([key("a")])) == "connection"


async def test_more_calls_than_connections_wait_for_their_turn(start_redis):
    server = start_redis()
    async with opened(server.url, max_connections=4) as store:
        await store.put_many(entries(range(50)))
        records = await asyncio.gather(*(store.get_many([key(n % 50)]) for n in range(500)))
        assert [names_of(record)[0] for record in records] == [str(n % 50) for n in range(500)]
        # One more is kept for making indexes, one listens, and one is the test's.
        assert len(server.client().client_list()) <= 4 + 3


@pytest.mark.parametrize("option", ["decode_responses=true", "protocol=3", "socket_timeout=0.0001"])
async def test_options_in_the_url_cannot_change_what_is_read(start_redis, option):
    server = start_redis()
    async with opened(f"{server.url}?{option}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


def test_a_url_that_cannot_be_read_is_a_mistake():
    for url in ("redis://host:port", "http://secret@127.0.0.1", "redis://:secret/#@127.0.0.1"):
        with pytest.raises(ConfigError) as mistake:
            RedisStore(url)
        assert "secret" not in str(mistake.value)


async def test_a_name_that_resolves_no_more_is_found_again_at_its_next_address(
    start_redis, monkeypatch
):
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    old, new = start_redis(), start_redis()
    names.ports["cache.test"] = old.port
    async with opened("redis://cache.test:6379") as store:
        await store.put_many(entries(["a"]))
        names.ports["cache.test"] = None
        assert names_of(await store.get_many([key("a")])) == ["a"]  # over what is connected

        old.kill()
        await until(lambda: is_refused(store))
        names.ports["cache.test"] = new.port

        async def is_kept():
            return await store.put_many(entries(["b"])) == 1

        await until(is_kept)
        assert names_of(await store.get_many([key("a"), key("b")])) == [None, "b"]
        assert new.client().exists(entry_name(key("b")))


async def is_refused(store) -> bool:
    """Whether Redis is away because its name has no address."""
    try:
        await store.get_many([key("a")])
    except StoreError as error:
        return error.kind == "connection" and "not known" in str(error)
    return False
