"""From hit rates to memory, nodes, network and cost."""

import math
from dataclasses import dataclass, fields

from .hits import Popularity, Reckoned, reckon


@dataclass(frozen=True, slots=True)
class Costs:
    """What entries, requests and nodes take; `docs/capacity.md` says where each is measured.

    Attributes:
        entry_bytes: an entry in Redis, its probe's index included.
        hot_entry_bytes: an entry in a process' hot tier.
        hit_wire_bytes: what a hit takes from Redis to the server.
        write_wire_bytes: what a write takes from the server to Redis.
        lookup_us: of a node's core for an entry by key.
        search_us: of a node's core for a lookup by probe.
        write_us: of a node's core to write an entry and index it.
        server_hot_us: of a server's core for a hit in its hot tier.
        server_store_us: of a server's core for a hit in Redis.
        inference_us: of a server's core for a text that no tier knows.
        node_bytes: memory of a node that may be used, after what forks and fragments take.
        busy: the share of a core that a node or server may use.
        node_per_hour, core_per_hour: prices, in any currency.
    """

    entry_bytes: float = 4_063
    hot_entry_bytes: float = 2_900
    hit_wire_bytes: float = 1_700
    write_wire_bytes: float = 2_600
    lookup_us: float = 8
    search_us: float = 300
    write_us: float = 500
    server_hot_us: float = 45
    server_store_us: float = 110
    inference_us: float = 3_000
    node_bytes: float = 48e9
    busy: float = 0.6
    node_per_hour: float = 0.5
    core_per_hour: float = 0.04


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        room: entries that the store may hold.
        hot_bytes: of one process' hot tier.
        processes: serving processes, each with a hot tier of its own.
        ttl_s: of entries.
        searched: the share of requests that find no entry by key and are looked up by probe.
        found: the share of these that a near entry answers.
        replicas: of each node.
    """

    room: float
    hot_bytes: float
    processes: int
    ttl_s: float
    searched: float
    found: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes; rates are per second, over all nodes or servers.

    Attributes:
        hot, store: the tiers.
        by_probe: the share of requests that a near entry answers.
        memory_bytes: of all masters.
        nodes: masters, the most of what memory, lookups and writes need.
        nodes_for_memory, nodes_for_work: what each of these needs.
        search_cores: cores of every single node that lookups by probe take: each asks all nodes.
        network_bytes: between servers and Redis.
        server_cores: of all servers.
        cost_per_hour: nodes with their replicas, and servers.
    """

    hot: Reckoned
    store: Reckoned
    by_probe: float
    memory_bytes: float
    nodes: int
    nodes_for_memory: int
    nodes_for_work: int
    search_cores: float
    network_bytes: float
    server_cores: float
    cost_per_hour: float


def plan(popularity: Popularity, wanted: Wanted, costs: Costs) -> Plan:
    """Return what a load takes."""
    rate = popularity.requests_per_s
    one = popularity.shared_by(wanted.processes)
    hot = reckon(one, "lru", wanted.hot_bytes / costs.hot_entry_bytes, wanted.ttl_s)
    store = reckon(popularity, "fifo", wanted.room, wanted.ttl_s)
    # What is in a hot tier is nearly always in the store, too: together they hit as the better one.
    by_key = max(hot.hit_rate, store.hit_rate)
    asked = rate * (1 - hot.hit_rate)
    searches = rate * (1 - by_key) * wanted.searched
    by_probe = (1 - by_key) * wanted.searched * wanted.found
    misses = rate * (1 - by_key - by_probe)
    memory = store.entries * costs.entry_bytes
    work_s = (asked * costs.lookup_us + misses * costs.write_us) / 1e6
    for_memory = _whole(memory / costs.node_bytes)
    for_work = _whole(work_s / costs.busy)
    nodes = max(1, for_memory, for_work)
    server_us = rate * hot.hit_rate * costs.server_hot_us
    server_us += (rate - rate * hot.hit_rate - misses) * costs.server_store_us
    server_us += misses * costs.inference_us
    cores = server_us / 1e6 / costs.busy
    network = (asked - misses) * costs.hit_wire_bytes + misses * costs.write_wire_bytes
    network += searches * nodes * costs.hit_wire_bytes  # each node answers with its nearest
    hourly = nodes * (1 + wanted.replicas) * costs.node_per_hour + cores * costs.core_per_hour
    return Plan(
        hot=hot,
        store=store,
        by_probe=by_probe,
        memory_bytes=memory,
        nodes=nodes,
        nodes_for_memory=for_memory,
        nodes_for_work=for_work,
        search_cores=searches * costs.search_us / 1e6 / costs.busy,
        network_bytes=network,
        server_cores=cores,
        cost_per_hour=hourly,
    )


COST_NAMES = [field.name for field in fields(Costs)]


def _whole(nodes: float) -> int:
    """Round up what is more than an error of its sums, which differ from CPU to CPU."""
    return math.ceil(nodes * (1 - 1e-9))
