"""Lookups by probe at one Redis: the searches, and the deeper ones past what has expired."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cacheproxy.stores.protocol import Neighbour
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.index import ProbeIndex, ProbeIndexes
from cacheproxy.stores.redis.link import Command, RedisLink, is_useless
from cacheproxy.stores.redis.search import Search

_LOOKUP_S = 5.0
"""The longest time for a lookup; callers usually set a shorter one. With 100,000 entries, Redis
takes 0.6 s to look up 2,048 probes (measured)."""

NEIGHBOURS = (1, 32, 256)
"""How many neighbours are asked for: one, and more if all of those had expired. Redis removes
expired entries soon, so that one nearly always suffices."""


async def find_near(
    link: RedisLink | ClusterLink,
    indexes: ProbeIndexes,
    index: ProbeIndex,
    search: Search,
    probes: NDArray[np.float32],
    depths: Sequence[int],
) -> list[list[Neighbour]]:
    """Return live entries near each probe (float32 [n, d]), best first.

    Looks deeper where only expired ones are found. There are none if the index is gone, which is
    then made again in the background.

    Raises:
        StoreError: Redis did not answer.
    """
    found: list[list[Neighbour]] = [[] for _ in probes]
    rows, expired = list(range(len(probes))), list[bytes]()
    for neighbours in depths:
        # Redis removes an expired key when a command other than a search touches it.
        removal: list[Command] = [("EXISTS", name) for name in expired]
        searches = [search.command(probes[row], neighbours) for row in rows]
        replies = await link.ask([*removal, *searches], timeout_s=_LOOKUP_S)
        if any(is_useless(reply) for reply in replies):
            indexes.lost(index)
            return [[] for _ in probes]
        answers = [
            search.read(reply, probes[row])
            for row, reply in zip(rows, replies[len(removal) :], strict=True)
        ]
        for row, answer in zip(rows, answers, strict=True):
            found[row] = answer.neighbours
        again = [i for i, answer in enumerate(answers) if answer.is_blocked]
        rows = [rows[i] for i in again]
        expired = [name for i in again for name in answers[i].expired]
        if not rows:
            break
    return found
