"""Lookups by probe on a whole cluster: all nodes are asked at the same time, answers are merged.

Where a node finds other nodes' entries too (`reach`), one node is asked. A node that does not
answer costs what its entries would have given, and is counted; the lookup goes on without it.
"""

import asyncio
import itertools
import math
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from redis.crc import key_slot

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, IndexStats, Neighbour, Partition
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.index import Hnsw, ProbeIndex
from cacheproxy.stores.redis.nodes.search import NodeSearch
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.url import Address, ClusterNodes

_ROWS_PER_DEADLINE = 128
"""As the guard of the tiers reckons."""


class ClusterSearch:
    """Searches on all nodes of a cluster; used from one event loop.

    Attributes:
        unanswered: searches of one node that were not answered, or not made because it does not
            answer.
    """

    def __init__(
        self,
        link: ClusterLink,
        nodes: ClusterNodes,
        purging: RedisPurges,
        hnsw: Hnsw,
        node_deadline_s: float,
    ) -> None:
        """Prepare searches; `node_deadline_s` is how long a node may take for 128 probes."""
        self._link = link
        self._nodes = nodes
        self._purging = purging
        self._hnsw = hnsw
        self._node_deadline_s = node_deadline_s
        self._searches: dict[Address, NodeSearch] = {}  # also of nodes that left
        self._turn = itertools.count()
        self._finds_all = False
        self.unanswered = 0

    async def close(self) -> None:
        """Stop all that goes on in the background; no call may be in progress."""
        for search in self._searches.values():
            await search.close()

    async def find(
        self, partition: Partition, probes: NDArray[np.float32], depths: Sequence[int]
    ) -> list[list[Neighbour]]:
        """Return live entries near each probe (float32 [n, d]), best first.

        Raises:
            StoreError: no node answered.
        """
        self._link.check()
        known = self._known()
        asked = {address: one for address, one in known.items() if one.gate.is_open}
        if self._reaches_all(known) and asked:
            address = list(asked)[next(self._turn) % len(asked)]
            asked = {address: asked[address]}
        else:
            self.unanswered += len(known) - len(asked)
        timeout_s = self._node_deadline_s * math.ceil(len(probes) / _ROWS_PER_DEADLINE)
        answers = await asyncio.gather(
            *(
                one.gate.pass_through(partial(one.find, partition, probes, depths), timeout_s)
                for one in asked.values()
            ),
            return_exceptions=True,
        )
        found, failure = [], StoreError("Redis: no node of the cluster answers", "unavailable")
        for address, answer in zip(asked, answers, strict=True):
            if isinstance(answer, StoreError):
                self._link.look_soon()
                self.unanswered += 1
                failure = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                self._note(address, answer)
                found.append(answer)
        if not found:
            raise failure
        return [merged(rows) for rows in zip(*found, strict=True)]

    async def prepare(self, indexes: Iterable[ProbeIndex]) -> None:
        """Create the indexes on all nodes that answer, where there are none."""
        searches = [one for one in self._known().values() if one.gate.is_open]
        prepared = [one.prepare(index) for index in indexes for one in searches]
        await asyncio.gather(*prepared, return_exceptions=True)

    async def check(self, written: Sequence[Entry]) -> None:
        """Find out whether the indexes of entries that were written are still there."""
        of_node: dict[Address, list[Entry]] = {}
        for entry in written:
            address = self._link.holder(key_slot(entry_name(entry.key)))
            if address is not None:
                of_node.setdefault(address, []).append(entry)
        known = self._known()
        checks = [
            known[address].check(entries)
            for address, entries in of_node.items()
            if address in known and known[address].gate.is_open
        ]
        await asyncio.gather(*checks, return_exceptions=True)

    @property
    def off_because(self) -> str | None:
        """Why a node cannot search, in a sentence; None while all can."""
        reasons = (one.indexes.off_because for one in self._known().values())
        return next((reason for reason in reasons if reason is not None), None)

    @property
    def reach(self) -> str:
        """Which nodes are asked, in words."""
        return "one node finds all" if self._reaches_all(self._known()) else "all nodes are asked"

    def stats(self) -> IndexStats:
        """Return what is known of the indexes, over all nodes."""
        seen = [one.watch.stats for one in self._known().values()]
        because = self.off_because
        # With Redis 8 each node tells of the same index.
        total = max if self._finds_all else sum
        return IndexStats(
            is_up=because is None,
            documents=total([one.documents for one in seen]) if seen else math.nan,
            failures=total([one.failures for one in seen]) if seen else math.nan,
            size_bytes=total([one.size_bytes for one in seen]) if seen else math.nan,
            indexed_ratio=min((one.indexed_ratio for one in seen), default=math.nan),
            rebuilds=sum(one.rebuilds for one in seen),
            off_because=because,
        )

    def _known(self) -> dict[Address, NodeSearch]:
        """Return the searches of all masters; those of new ones are made."""
        masters = self._link.masters
        for address in masters:
            if address not in self._searches:
                pool = self._nodes.make_pool(address)
                search = NodeSearch(address, self._link, pool, self._purging, self._hnsw)
                self._searches[address] = search
                search.start()
        return {address: self._searches[address] for address in masters}

    def _reaches_all(self, known: dict[Address, NodeSearch]) -> bool:
        """Return whether it is enough to ask one node, as far as is known.

        A node whose indexes have the cluster's names, and which has found another node's entry.
        """
        return self._finds_all and all(one.is_own is False for one in known.values())

    def _note(self, address: Address, found: Sequence[Sequence[Neighbour]]) -> None:
        """Note whether a node finds entries that it does not hold."""
        if self._finds_all or self._searches[address].is_own is not False:
            return
        for neighbours in found:
            for one in neighbours[:1]:
                holder = self._link.holder(key_slot(entry_name(one.key)))
                self._finds_all |= holder is not None and holder != address


def merged(rows: Sequence[list[Neighbour]]) -> list[Neighbour]:
    """Return what several nodes found for one probe, best first, each key once.

    A key may come from two nodes while its slot is moved.
    """
    if sum(map(bool, rows)) < 2:
        return next((row for row in rows if row), [])
    best: dict[bytes, Neighbour] = {}
    for one in sorted(itertools.chain(*rows), key=lambda one: -one.score):
        best.setdefault(one.key, one)
    return list(best.values())
