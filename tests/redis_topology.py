"""Several real Redis processes that belong together, on 127.0.0.1 only."""

import time
from collections.abc import Callable
from pathlib import Path

from redis_server import RedisServer

SERVICE = "cache"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; the processes have 30 s for it."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class _Sentinel(RedisServer):
    """One Sentinel that decides alone, and soon."""

    def __init__(self, master_port: int, *lines: str) -> None:
        super().__init__(search=False)
        self._config = Path(self._folder.name) / "sentinel.conf"
        config = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder.name}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 5000",
            *lines,
        ]
        self._config.write_text("\n".join(config) + "\n")

    def _command(self) -> list[str]:
        return [str(self._program.server), str(self._config), "--sentinel"]


class SentinelPair:
    """A master, its replica, and a Sentinel that knows both.

    Attributes:
        url: of the store.
    """

    def __init__(self) -> None:
        # A master would otherwise wait 5 s for more replicas.
        at_once = ("--repl-diskless-sync-delay", "0")
        self._first = RedisServer(*at_once)
        self._second = RedisServer(*at_once, "--replicaof", "127.0.0.1", str(self._first.port))
        self._sentinel = _Sentinel(self._first.port)
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel.port}/{SERVICE}"

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
