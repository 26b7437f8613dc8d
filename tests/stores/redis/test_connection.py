"""One connection: the replies to a batch of commands, or the one reason why there are none."""

import asyncio

import pytest
from redis import exceptions
from redis_entries import until

from cacheproxy.stores.redis.url import make_pool


@pytest.fixture
async def connection(redis_url):
    connection = make_pool(redis_url).make_connection()
    await connection.connect()
    yield connection
    await connection.disconnect(nowait=True)


async def test_errors_of_redis_are_replies_in_their_places(connection):
    good, bad, last = await connection.ask([("PING",), ("HGET", "too", "many", "a"), ("PING",)])
    assert (good, last) == (b"PONG", b"PONG")
    assert isinstance(bad, exceptions.ResponseError)
    assert connection.is_idle


async def test_a_connection_is_not_idle_before_all_has_arrived(connection):
    replies = connection.ask([("PING",), ("PING",)])
    assert not connection.is_idle
    assert await replies == [b"PONG", b"PONG"]
    assert connection.is_idle


async def test_no_commands_have_no_replies(connection):
    assert await connection.ask([]) == []
    assert connection.is_idle


async def test_a_reply_that_nobody_asked_for_ends_the_connection(connection):
    assert await connection.ask([("PING",)]) == [b"PONG"]
    connection._writer.write(b"PING\r\n")

    async def is_over():
        return not connection.is_idle

    await until(is_over)
    assert isinstance(await connection.ask([("PING",)]), exceptions.ConnectionError)


async def test_a_reply_to_a_question_that_was_given_up_ends_the_connection(connection):
    connection.ask([("PING",)]).cancel()

    async def is_over():
        return connection._writer.transport.is_closing()

    await until(is_over)
    assert not connection.is_idle


async def test_who_waits_for_a_connection_that_is_closed_learns_it(connection, client):
    own = (await connection.ask([("CLIENT", "ID")]))[0]
    replies = connection.ask([("BLPOP", "nothing", 0)])
    await asyncio.to_thread(client.client_kill_filter, _id=str(own))
    assert isinstance(await replies, exceptions.ConnectionError)
    assert not connection.is_idle
    assert isinstance(await connection.ask([("PING",)]), exceptions.ConnectionError)


async def test_what_cannot_be_packed_is_an_error_and_nothing_is_sent(connection):
    assert isinstance(await connection.ask([("PING", object())]), Exception)
    assert await connection.ask([("PING",)]) == [b"PONG"]
