"""A network within this machine, whose wires can be cut: what is sent is then lost in silence.

A switch is a bridge in a network namespace, with no way out. This machine has a wire to it, and so
has every namespace that is made for a server. A wire is cut at the switch: nobody sees a link go
down, nothing is refused or reset, and connections hang, as when a network is partitioned.

It needs root and the program `ip`.
"""

import secrets
import shutil
import subprocess
from functools import partial

_HOSTS = range(1, 12)
"""Of this machine, and of up to ten servers."""


class NoNetwork(Exception):
    """Networks cannot be made here."""


class Wire:
    """The wire of one server.

    Attributes:
        host: its address; it reaches this machine and the others by theirs.
        command: what to start a program with, so that it is at this end; it keeps its process id.
    """

    def __init__(self, host: str, namespace: str, switch: str, port: str) -> None:
        self.host = host
        self.command = ("ip", "netns", "exec", namespace)
        self._set_port = partial(_ip, "-n", switch, "link", "set", port)

    def cut(self) -> None:
        """Lose all that is sent in either direction from now on."""
        self._set_port("nomaster")  # the port stays up, and what comes in goes nowhere

    def mend(self) -> None:
        """Let all pass again."""
        self._set_port("master", "bridge")


class Network:
    """A switch, this machine's wire to it, and those of servers.

    Attributes:
        host: this machine's address, which servers reach it by.
    """

    def __init__(self) -> None:
        """Make the network.

        Raises:
            NoNetwork: with the reason.
        """
        if shutil.which("ip") is None:
            raise NoNetwork("there is no program ip")
        self._name = f"cp{secrets.token_hex(3)}"
        # Of the addresses for benchmarks of networks (RFC 2544), which nobody else uses.
        self._subnet = f"198.18.{secrets.randbelow(256)}"
        self._namespaces: list[str] = []
        self.host = self._address(_HOSTS[0])
        switch = self._add_namespace("switch")
        try:
            _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", switch, "link", "set", "bridge", "up")
            self._plug(_HOSTS[0], None, self._name)
        except BaseException:
            self.remove()
            raise

    def add_wire(self) -> Wire:
        """Return the wire of one more server, in a namespace of its own."""
        number = _HOSTS[len(self._namespaces)]
        namespace = self._add_namespace(str(number))
        port = self._plug(number, namespace, "eth0")
        return Wire(self._address(number), namespace, self._namespaces[0], port)

    def remove(self) -> None:
        """Remove all that was made; programs at the ends must have ended."""
        for namespace in self._namespaces:
            _ip("netns", "delete", namespace)
        self._namespaces.clear()

    def _add_namespace(self, name: str) -> str:
        namespace = f"{self._name}-{name}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        return namespace

    def _plug(self, number: int, namespace: str | None, device: str) -> str:
        """Give a namespace (None: this machine's own) a device; return its port at the switch."""
        switch, port = self._namespaces[0], f"port{number}"
        at = () if namespace is None else ("-n", namespace)
        mac = partial("02:00:00:12:00:{:02x}".format)
        add = ("link", "add", device, "address", mac(number), "type", "veth")
        _ip(*at, *add, "peer", "name", port, "netns", switch)
        _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
        # All know where the others are. Otherwise those that are cut off would be looked for, and
        # connecting to them would fail for that.
        lines = [
            f"addr add {self._address(number)}/24 dev {device}",
            f"link set {device} up",
            *(
                f"neigh add {self._address(n)} lladdr {mac(n)} nud permanent dev {device}"
                for n in _HOSTS
                if n != number
            ),
        ]
        _ip(*at, "-batch", "-", given="\n".join(lines))
        return port

    def _address(self, number: int) -> str:
        return f"{self._subnet}.{number}"


def _ip(*command: str, given: str | None = None) -> None:
    done = subprocess.run(["ip", *command], input=given, capture_output=True, text=True)
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(command)}: {done.stderr.strip()}")
