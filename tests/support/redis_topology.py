"""Several real Redis processes that belong together, on 127.0.0.1 or at the ends of wires."""

import time
from collections.abc import Callable
from pathlib import Path

from network import Network
from redis.crc import key_slot
from redis_server import RedisServer, free_port

SERVICE = "cache"

SLOTS = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; the processes have 30 s for it."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class _Sentinel(RedisServer):
    """One Sentinel that decides alone, and soon; on this machine, in no namespace."""

    def __init__(self, master: RedisServer, host: str) -> None:
        super().__init__(search=False)
        self.host = host
        self._config = Path(self._folder.name) / "sentinel.conf"
        config = [
            f"port {self.port}",
            f"bind {host}",
            "protected-mode no",
            f"dir {self._folder.name}",
            f"sentinel monitor {SERVICE} {master.host} {master.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            # Twice this has to pass between two failovers.
            f"sentinel failover-timeout {SERVICE} 1500",
        ]
        self._config.write_text("\n".join(config) + "\n")

    def _command(self) -> list[str]:
        return [str(self._server), str(self._config), "--sentinel"]


class SentinelPair:
    """A master, its replica, and a Sentinel that knows both.

    Attributes:
        url: of the store; names a Sentinel that is away, too.
    """

    def __init__(self, network: Network | None = None) -> None:
        """Prepare them; on a network, master and replica have a wire each."""
        host = network.host if network else "127.0.0.1"
        # A master would otherwise wait 5 s for more replicas.
        at_once = ("--repl-diskless-sync-delay", "0")
        self._first = RedisServer(*at_once, wire=network and network.add_wire())
        of = ("--replicaof", self._first.host, str(self._first.port))
        self._second = RedisServer(*at_once, *of, wire=network and network.add_wire())
        self._sentinel = _Sentinel(self._first, host)
        sentinels = f"{host}:{free_port()},{host}:{self._sentinel.port}"
        self.url = f"redis+sentinel://{sentinels}/{SERVICE}"

    def start(self) -> None:
        """Start all three, and wait until the Sentinel knows that the replica is up to date."""
        self._first.start()
        self._second.start()
        with self._second.client() as replica:
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
        self._sentinel.start()
        with self._sentinel.client() as sentinel:

            def is_known() -> bool:
                replicas = sentinel.sentinel_slaves(SERVICE)
                return [one["master-link-status"] for one in replicas] == ["ok"]

            wait_until(is_known)

    @property
    def servers(self) -> tuple[RedisServer, RedisServer]:
        """Both, whichever is the master."""
        return self._first, self._second

    @property
    def master(self) -> RedisServer:
        """The one that Sentinel says is the master."""
        with self._sentinel.client() as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(SERVICE)
        return self._first if port == self._first.port else self._second

    def fail_over(self) -> None:
        """Have Sentinel make the replica the master, though the master is well."""
        before = self.master
        with self._sentinel.client() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
        wait_until(lambda: self.master is not before)

    def remove(self) -> None:
        """End all for good."""
        for server in (self._sentinel, self._first, self._second):
            server.remove()


class ThreeNodes:
    """A cluster of three masters, with a third of the slots each, and no replicas.

    Attributes:
        nodes: the three.
        url: of the store; names only two of them.
    """

    def __init__(self, network: Network | None = None, *, search: bool = True) -> None:
        """Prepare them; on a network, each node has a wire."""
        self._network = network
        self._search = search
        self._buses: list[int] = []
        self._replicas: list[RedisServer] = []
        self.nodes = [self._make_node() for _ in range(3)]
        first, second, _ = (f"{node.host}:{node.port}" for node in self.nodes)
        self.url = f"redis+cluster://{first},{second}"

    def _make_node(self) -> RedisServer:
        self._buses.append(free_port())
        flags = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        flags += ("--cluster-require-full-coverage", "no")
        flags += ("--cluster-port", str(self._buses[-1]), "--repl-diskless-sync-delay", "0")
        wire = self._network and self._network.add_wire()
        return RedisServer(*flags, search=self._search, wire=wire)

    def node_of(self, key: bytes) -> RedisServer:
        """Return the node that holds a key, as the cluster was made."""
        slot = key_slot(key)
        return next(node for node, (_, last) in zip(self.nodes, SLOTS, strict=True) if slot <= last)

    def start(self) -> None:
        """Start all three, and wait until each takes the cluster for well."""
        for node in self.nodes:
            node.start()
        for node, (first, last) in zip(self.nodes, SLOTS, strict=True):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "MEET", *self._first_node)
        wait_until(self.is_well)

    @property
    def _first_node(self) -> tuple[str, int, int]:
        return self.nodes[0].host, self.nodes[0].port, self._buses[0]

    def is_well(self) -> bool:
        """Whether all three can be reached, and know of each other's slots."""
        return all(
            b"cluster_state:ok" in self.ask(node, "CLUSTER", "INFO")
            and len(self.ask(node, "CLUSTER", "SLOTS")) == len(SLOTS)
            for node in self.nodes
        )

    def ask(self, node: RedisServer, *command: str | int):
        """Return one node's answer, as it came."""
        with node.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def names(self) -> dict[bytes, RedisServer]:
        """Return the names of all keys, and where they are."""
        return {name: node for node in self.nodes for name in self.ask(node, "KEYS", "*")}

    def flush(self) -> None:
        """Remove all keys."""
        for node in self.nodes:
            self.ask(node, "FLUSHALL")

    def move_slot(self, key: bytes, to: RedisServer) -> None:
        """Give a key's slot to another node, and what was in it up."""
        slot, name = key_slot(key), self.ask(to, "CLUSTER", "MYID")
        for held in self.ask(self.node_of(key), "CLUSTER", "GETKEYSINSLOT", slot, 1_000):
            self.ask(self.node_of(key), "DEL", held)
        for node in (to, *self.nodes):
            self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", name)

    def add_replica(self, master: RedisServer) -> RedisServer:
        """Start one more node, and wait until it is the master's replica, and up to date."""
        replica = self._make_node()
        self._replicas.append(replica)
        replica.start()
        name = self.ask(master, "CLUSTER", "MYID")
        self.ask(replica, "CLUSTER", "MEET", *self._first_node)
        wait_until(lambda: name in self.ask(replica, "CLUSTER", "NODES"))
        self.ask(replica, "CLUSTER", "REPLICATE", name)
        with replica.client() as client:
            wait_until(lambda: client.info("replication").get("master_link_status") == "up")
        wait_until(lambda: b"slave " + name in self.ask(self.nodes[0], "CLUSTER", "NODES"))
        return replica

    def remove(self) -> None:
        """End all for good."""
        for node in (*self.nodes, *self._replicas):
            node.remove()
