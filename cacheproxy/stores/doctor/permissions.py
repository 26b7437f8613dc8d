"""Whether the user may run every command that the store needs, each found out without running it.

The commands are queued in a transaction that is never executed: Redis checks permissions when it
queues a command, and drops what was queued when the connection closes.
"""

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from cacheproxy.stores.doctor.findings import Finding
from cacheproxy.stores.redis.index import ENTRY_PREFIX
from cacheproxy.stores.redis.link import Command, as_store_error
from cacheproxy.stores.redis.purging.floors import FLOORS, GENERATION, RUNNING
from cacheproxy.stores.redis.purging.notices import CHANNEL

_ENTRY = ENTRY_PREFIX + b"doctor"
_INDEX = "cp:i3:doctor"

_PLAIN: tuple[Command, ...] = (
    ("TIME",),
    ("PING",),
    ("INFO",),
    ("SCAN", 0),
    ("HGET", _ENTRY, "record"),
    ("HMGET", _ENTRY, "record"),
    ("HSET", _ENTRY, "record", ""),
    ("DEL", _ENTRY),
    ("EXISTS", _ENTRY),
    ("PEXPIREAT", _ENTRY, 1),
    ("GET", GENERATION),
    ("SET", GENERATION, 1),
    ("EXPIRE", FLOORS, 1),
    ("ZADD", FLOORS, 1, "doctor"),
    ("ZMSCORE", FLOORS, "doctor"),
    ("ZRANGE", FLOORS, 0, -1),
    ("ZREMRANGEBYSCORE", FLOORS, 0, 0),
    ("SADD", RUNNING, "doctor"),
    ("SREM", RUNNING, "doctor"),
    ("SMEMBERS", RUNNING),
    ("PUBLISH", CHANNEL, ""),
    ("WAIT", 0, 0),
)
_SEARCH: tuple[Command, ...] = (
    ("FT._LIST",),
    ("FT.INFO", _INDEX),
    ("FT.SEARCH", _INDEX, "*"),
    ("FT.CREATE", _INDEX, "SCHEMA", "namespace", "TAG"),
    ("FT.DROPINDEX", _INDEX),
)
_CLUSTER: tuple[Command, ...] = (
    ("CLUSTER", "SLOTS"),
    ("EVAL", "return 1", 0),
)

_BEFORE: tuple[Command, ...] = (("WATCH", _ENTRY), ("UNWATCH",))
"""Not possible in a transaction, and harmless outside of one."""


async def check_permissions(
    connection: AbstractConnection, node: str, *, has_search: bool, is_cluster: bool
) -> Finding:
    """Return whether the user of an open connection may do what the store needs.

    Commands are left out that the server would not know. The connection cannot be used afterwards.

    Raises:
        StoreError: Redis did not answer.
    """
    commands: list[Command] = [*_BEFORE, ("MULTI",), *_PLAIN]
    commands += _SEARCH if has_search else ()
    commands += _CLUSTER if is_cluster else ()
    missing, keys = [], set[str]()
    try:
        for command in commands:
            said = await _reply(connection, command)
            if not isinstance(said, exceptions.NoPermissionError):
                continue
            if "access" in str(said) and "command" not in str(said):
                keys.add("&cp:*" if "channel" in str(said) else "~cp:*")
            else:
                missing.append(f"+{_name(command)}")
        # On a new connection, which has nothing queued that EXEC would run.
        if not missing and not keys:
            await connection.disconnect(nowait=True)
            await connection.connect()
            missing = [
                f"+{last[0].lower()}"
                for last in (("MULTI",), ("EXEC",), ("SUBSCRIBE", CHANNEL))
                if isinstance(await _reply(connection, last), exceptions.NoPermissionError)
            ]
    except Exception as error:
        # Any exception: replies that are not Redis' protocol may raise anything.
        raise as_store_error(error) from error
    if not missing and not keys:
        return Finding("permissions", "ok", "the user may do all that is needed", node=node)
    rights = " ".join([*sorted(keys), *missing])
    todo = f"give them: ACL SETUSER USER {rights}"
    return Finding("permissions", "error", f"the user lacks rights: {rights}", todo, node)


def _name(command: Command) -> str:
    return "cluster|slots" if command[0] == "CLUSTER" else str(command[0]).lower()


async def _reply(connection: AbstractConnection, command: Command) -> object:
    try:
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()
    except exceptions.ResponseError as error:
        return error
