"""Named states in Redis: small values that processes share, such as evidence."""

from cacheproxy.keys import hex_id
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import value_of
from cacheproxy.stores.redis.link import RedisLink, raise_error_in

_PREFIX = "cp:{shared}:s1:"
"""The braces put them on the node of a cluster that serves conversations."""

_ASK_S = 5.0


class RedisStates:
    """Reads and swaps states; `Store` has the methods."""

    def __init__(self, link: RedisLink | ClusterLink) -> None:
        self._link = link

    async def read(self, name: str) -> bytes | None:
        """Return the live state of that name."""
        (reply,) = await self._link.ask([("GET", _PREFIX + hex_id(name))], timeout_s=_ASK_S)
        state: bytes | None = value_of(reply)
        return state

    async def swap(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state if it still is `old`; return whether it was."""
        key = _PREFIX + hex_id(name)
        async with self._link.conversation(timeout_s=_ASK_S) as ask:
            watching, found = await ask([("WATCH", key), ("GET", key)])
            raise_error_in(watching)
            if value_of(found) != old:
                await ask([("UNWATCH",)])
                return False
            write = ("SET", key, new, "PXAT", int(1000 * expires_at))
            replies = await ask([("MULTI",), write, ("EXEC",)])
            for reply in replies:
                raise_error_in(reply)
            return replies[-1] is not None
