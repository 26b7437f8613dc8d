"""Names of hosts that a test gives addresses, and takes them away again."""

import socket


class Names:
    """Resolves these names as told, and all others as always; set it as `socket.getaddrinfo`.

    Attributes:
        ports: of the server on 127.0.0.1 that a name stands for; None: it resolves no more.
        asked: how often each was asked for.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int | None] = {}
        self.asked: dict[str, int] = {}
        self._resolve = socket.getaddrinfo

    def __call__(self, host, port, *args, **options):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.ports:
            return self._resolve(host, port, *args, **options)
        self.asked[name] = self.asked.get(name, 0) + 1
        if (at := self.ports[name]) is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._resolve("127.0.0.1", at, *args, **options)
