"""What one Redis says of itself, read from its replies to INFO and TIME; no I/O."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cacheproxy.stores.doctor.findings import Finding, Level

_OLDEST = (6, 2)
_TESTED = (7, 4)

_FULL = 0.95
_BEHIND_BYTES = 2**20
_BEHIND_S = 5
_SKEW_S, _WORST_SKEW_S = 1.0, 60.0

_GOOD_REPLICAS = "min_slaves_good_slaves"
"""The field that INFO has where `min-replicas-to-write` is set."""

_NO_SEARCH = (
    "no Query Engine: there is no semantic tier, and answers are found by key only",
    "use Redis 8 or Redis Stack 7.4, or set semantic.mode to off",
)


@dataclass(frozen=True)
class Facts:
    """What a server says of itself.

    Attributes:
        info: INFO's fields.
        modules: version of each module, by name.
    """

    info: Mapping[str, str]
    modules: Mapping[str, int]

    @classmethod
    def read(cls, reply: bytes) -> "Facts":
        """Return the facts in a reply to INFO EVERYTHING; what cannot be read is left out."""
        text = reply.decode("utf-8", "replace")
        lines = [line.partition(":") for line in text.splitlines() if ":" in line]
        modules = re.findall(r"^module:name=([^,]+),ver=(\d+)", text, re.MULTILINE)
        return cls(
            {name: value for name, _, value in lines},
            {name.lower(): int(version) for name, version in modules},
        )

    def number(self, name: str) -> float:
        """Return a field as a number; 0 if it has none."""
        try:
            return float(self.info.get(name, "0"))
        except ValueError:
            return 0.0

    @property
    def is_valkey(self) -> bool:
        """Whether it is Valkey."""
        return "valkey_version" in self.info

    @property
    def is_cluster_node(self) -> bool:
        """Whether it is a node of a cluster."""
        return self.info.get("cluster_enabled") == "1"

    @property
    def is_replica(self) -> bool:
        """Whether it follows a master."""
        return self.info.get("role") == "slave"

    @property
    def version(self) -> str:
        """Its name and version."""
        if self.is_valkey:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', 'of unknown version')}"


def judge(facts: Facts, node: str, *, wants_search: bool) -> Iterator[Finding]:
    """Yield a finding for each thing that INFO tells of."""
    yield _version(facts, node)
    yield _search(facts, node, wants_search=wants_search)
    yield _memory(facts, node)
    yield _persistence(facts, node)
    yield _replication(facts, node)


def _version(facts: Facts, node: str) -> Finding:
    numbers = re.match(r"(\d+)\.(\d+)", facts.info.get("redis_version", ""))
    found = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if found < _OLDEST:
        todo = "use Redis 8 or Redis Stack 7.4"
        return Finding("version", "error", f"{facts.version} is too old", todo, node)
    if facts.is_valkey or found < _TESTED:
        says = f"{facts.version}, with which lookups by key are expected to work"
        return Finding("version", "warning", says, "the tests run Redis Stack 7.4", node)
    return Finding("version", "ok", facts.version, node=node)


def _search(facts: Facts, node: str, *, wants_search: bool) -> Finding:
    if version := facts.modules.get("search"):
        return Finding("query engine", "ok", f"search module, version {version}", node=node)
    if not wants_search:
        return Finding("query engine", "ok", "none, and semantic.mode is off", node=node)
    return Finding("query engine", "error", *_NO_SEARCH, node)


def _memory(facts: Facts, node: str) -> Finding:
    used, most = facts.number("used_memory"), facts.number("maxmemory")
    policy = facts.info.get("maxmemory_policy", "unknown")
    says = f"{_size(used)} used of {_size(most) if most else 'no limit'}, policy {policy}"
    is_full = bool(most) and used >= _FULL * most
    if policy == "noeviction" and is_full:
        todo = "raise maxmemory or set maxmemory-policy volatile-ttl: a full Redis refuses writes"
        return Finding("memory", "error", f"full: {says}", todo, node)
    if policy == "noeviction" and most:
        todo = "set maxmemory-policy volatile-ttl, or writes are refused once it is full"
        return Finding("memory", "warning", says, todo, node)
    if not most:
        return Finding("memory", "warning", says, "set maxmemory, or it grows without end", node)
    if policy.startswith("allkeys"):
        todo = "set maxmemory-policy volatile-ttl, which evicts the notes of purges last"
        return Finding("memory", "warning", says, todo, node)
    return Finding("memory", "ok", says, node=node)


def _persistence(facts: Facts, node: str) -> Finding:
    failing = [
        name
        for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if facts.info.get(name, "ok") != "ok"
    ]
    if failing:
        says = f"the last save failed ({', '.join(failing)})"
        return Finding("persistence", "error", says, "see Redis' log; it may refuse writes", node)
    if facts.info.get("aof_enabled") == "1":
        return Finding("persistence", "ok", "append-only file", node=node)
    says = "no append-only file: a restart loses what no snapshot has, which costs misses"
    return Finding("persistence", "ok", says, node=node)


def _replication(facts: Facts, node: str) -> Finding:
    check = "replication"
    if facts.is_replica:
        link = facts.info.get("master_link_status", "unknown")
        says = f"a replica (its link to the master is {link}), which refuses writes"
        return Finding(check, "error", says, "name the master in the URL, or Sentinel", node)
    offset = facts.number("master_repl_offset")
    replicas = [
        dict(part.partition("=")[::2] for part in value.split(","))
        for name, value in facts.info.items()
        if re.fullmatch(r"slave\d+", name)
    ]
    if not replicas:
        return Finding(check, "ok", "no replica", node=node)
    behind = []
    for one in replicas:
        missing = offset - float(one.get("offset", 0))
        late_s = float(one.get("lag", 0))
        if one.get("state") != "online" or missing > _BEHIND_BYTES or late_s > _BEHIND_S:
            behind.append(f"{one.get('ip')}:{one.get('port')} by {_size(missing)}, {late_s:.0f} s")
    if behind:
        todo = "look at that replica: a failover to it would lose entries and purges"
        return Finding(check, "warning", f"a replica is behind: {', '.join(behind)}", todo, node)
    says = f"{len(replicas)} replica(s), up to date"
    # In a cluster, a master that is cut off stops by itself. With a single replica, a new master
    # would have none and refuse writes until the old one is back.
    if len(replicas) > 1 and not facts.is_cluster_node and _GOOD_REPLICAS not in facts.info:
        todo = "set min-replicas-to-write 1, so that a master that is cut off takes no purges"
        return Finding(check, "warning", says, todo, node)
    return Finding(check, "ok", says, node=node)


def judge_clock(skew_s: float, node: str) -> Finding:
    """Return the finding about a server's clock, which is ahead of this machine's by `skew_s`."""
    if abs(skew_s) < _SKEW_S:
        return Finding("clock", "ok", f"{1000 * skew_s:+.0f} ms from this machine's", node=node)
    says = f"{skew_s:+.1f} s from this machine's, and so are the ends of entries"
    level: Level = "error" if abs(skew_s) >= _WORST_SKEW_S else "warning"
    return Finding("clock", level, says, "synchronise both clocks (NTP)", node)


def judge_round_trip(median_s: float, deadline_s: float, node: str) -> Finding:
    """Return the finding about the time of a round trip, given a lookup's deadline."""
    says = f"{1000 * median_s:.2f} ms; a lookup's deadline is {1000 * deadline_s:g} ms"
    if median_s < deadline_s / 5:
        return Finding("round trip", "ok", says, node=node)
    level: Level = "warning" if median_s < deadline_s / 2 else "error"
    todo = "bring Redis nearer, or raise cache.deadline_ms"
    return Finding("round trip", level, says, todo, node)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
