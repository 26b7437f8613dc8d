"""Whether the replicas of a Redis have what was written, so that a failover cannot lose it.

A purge is acknowledged once every replica that its master is connected to has confirmed it. A
replica that has just gone may have become the master itself, while this one does not know it yet:
it is waited for, too, until it has been away for a while. Where there is no replica, there is
nothing to wait for.
"""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cacheproxy.errors import StoreError
from cacheproxy.stores.redis.link import Part, raise_error_in

_ASK_S = 10.0
CONFIRM_S = 3.0
"""How long a purge waits for the replicas."""

_BELIEVED_GONE_S = 15.0
"""How long a replica that is gone counts as one that may have taken over. Redis Cluster and
Sentinel tell an old master within a few seconds, if they reach it."""

_MOST_MASTERS = 64


class _Seen(NamedTuple):
    """Replicas that a master had, and since when it has fewer; None if it has not."""

    most: int
    fewer_since: float | None


class Replicas:
    """Waits for the replicas of any number of masters; used from one event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Know of none; `now` gives seconds of a clock that never goes back."""
        self._now = now
        self._seen: dict[bytes, _Seen] = {}  # by the id of a master's history, the oldest first

    async def look(self, part: Part) -> None:
        """Take note of the replicas that a master has.

        Raises:
            StoreError: it did not answer.
        """
        await self._count(part)

    async def confirm(self, part: Part) -> None:
        """Return when all replicas have what has been written so far.

        Raises:
            StoreError: not all confirmed it in time, or the master did not answer.
        """
        connected, expected = await self._count(part)
        if not (connected or expected):
            return
        # WAIT is for what its own connection wrote, and all that was written before: so it writes
        # a key, which expires at once. One that is about to be up to date is waited for, too.
        write = ("SET", f"cp:{{{part.tag}}}:written", 1, "PX", 1)
        wait = ("WAIT", max(connected, expected), int(1000 * CONFIRM_S))
        written, confirmed = await part.link.ask([write, wait], timeout_s=CONFIRM_S + _ASK_S)
        raise_error_in([written, confirmed])
        if confirmed < max(connected, expected):
            _, expected = await self._count(part)
        if confirmed < expected:
            raise StoreError(
                f"Redis: {confirmed} of {expected} replicas have it after {CONFIRM_S:g} s",
                "unavailable",
            )

    async def _count(self, part: Part) -> tuple[int, int]:
        """Return how many replicas are connected, and how many have to confirm."""
        (info,) = await part.link.ask([("INFO", "replication")], timeout_s=_ASK_S)
        raise_error_in(info)
        history, count = history_in(info), info.count(b"state=online")
        seen = self._seen.pop(history, _Seen(count, None))
        if count >= seen.most:
            seen = _Seen(count, None)
        elif seen.fewer_since is None:
            seen = seen._replace(fewer_since=self._now())
        elif self._now() - seen.fewer_since > _BELIEVED_GONE_S:
            seen = _Seen(count, None)
        self._seen[history] = seen
        if len(self._seen) > _MOST_MASTERS:
            del self._seen[next(iter(self._seen))]
        return len(re.findall(rb"^slave\d", info, re.MULTILINE)), seen.most


def history_in(info: Any) -> bytes:
    """Return the id of a master's history from INFO's reply; another master has another one."""
    found = re.search(rb"master_replid:(\w+)", info)
    return found.group(1) if found else b""
