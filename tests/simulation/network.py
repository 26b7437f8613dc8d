"""The network between the simulated servers and Redis, and all that can go wrong in it.

A connection keeps the order of what it carries, as TCP does. It may be slow; it may be cut before a
command arrives, between two commands of one message, or before a reply arrives; and it may fall
silent. What a client sent before it gave up still arrives, and is executed behind its back.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions

from tests.simulation.redis_peer import RedisPeer, Session
from tests.simulation.world import SimLoop, World


@dataclass
class Weather:
    """How the network is for one server.

    Attributes:
        latency_s: a message's mean latency.
        slow: the share of messages that take up to `slow_s` more.
        loss: the share of messages at which the connection breaks.
        is_partitioned: whether nothing gets through; what was sent waits, as TCP repeats it.
    """

    latency_s: float = 0.0002
    slow: float = 0.0
    slow_s: float = 0.1
    loss: float = 0.0
    is_partitioned: bool = False
    waiting: list[Any] = field(default_factory=list)


class Network:
    """Connections of servers to one Redis.

    Attributes:
        weather: by server.
        busy_until: until when Redis answers nobody.
        disturbed_at: when a server's network, or Redis, was last out of order.
    """

    def __init__(self, world: World, peer: RedisPeer) -> None:
        self.world = world
        self.peer = peer
        self.weather: dict[SimLoop, Weather] = {}
        self.busy_until = 0.0
        self.disturbed_at: dict[SimLoop, float] = {}
        self._connections: list[SimConnection] = []

    def of(self, loop: SimLoop) -> Weather:
        """Return a server's weather."""
        weather = self.weather.get(loop)
        if weather is None:
            weather = self.weather[loop] = Weather()
        return weather

    def disturb(self, loop: SimLoop) -> None:
        """Take note that something went wrong for a server."""
        self.disturbed_at[loop] = self.world.now

    def is_disturbed(self, loop: SimLoop) -> bool:
        """Return whether the network of a server is out of order now."""
        weather = self.of(loop)
        is_bad = weather.is_partitioned or weather.slow or weather.loss
        return bool(is_bad) or self.busy_until > self.world.now

    def freeze(self, seconds: float) -> None:
        """Let Redis answer nobody for a while."""
        self.busy_until = max(self.busy_until, self.world.now + seconds)

    def partition(self, loop: SimLoop) -> None:
        """Let nothing get through to or from a server."""
        self.of(loop).is_partitioned = True
        self.disturb(loop)

    def heal(self, loop: SimLoop) -> None:
        """Let everything through again, first what has waited."""
        weather = self.of(loop)
        if weather.is_partitioned:
            self.disturb(loop)
        weather.is_partitioned = False
        waiting, weather.waiting = weather.waiting, []
        for call in waiting:
            call()

    def cut(self, loop: SimLoop) -> None:
        """Break all connections of a server."""
        self.disturb(loop)
        for connection in [one for one in self._connections if one.loop is loop]:
            connection.break_off()

    def latency_s(self, weather: Weather) -> float:
        """Draw how long one message takes."""
        chance = self.world.chance.random
        seconds = weather.latency_s * (0.5 + chance())
        if weather.slow and chance() < weather.slow:
            seconds += chance() * weather.slow_s
        return seconds

    def make_connection(self, loop: SimLoop) -> "SimConnection":
        """Return a connection that is not connected yet."""
        connection = SimConnection(self, loop)
        self._connections.append(connection)
        return connection

    def forget(self, connection: "SimConnection") -> None:
        """Take note that a connection is over."""
        if connection in self._connections:
            self._connections.remove(connection)


class SimPool:
    """Makes the connections of one server; stands for redis-py's pool."""

    def __init__(self, network: Network, loop: SimLoop) -> None:
        self._network, self._loop = network, loop

    def make_connection(self) -> "SimConnection":
        return self._network.make_connection(self._loop)


class SimConnection:
    """One connection, as redis-py's `AbstractConnection`; commands are sent as they are."""

    def __init__(self, network: Network, loop: SimLoop) -> None:
        self.loop = loop
        self.is_connected = False
        self._network = network
        self._weather = network.of(loop)
        self._session = Session(self._send_back)
        self._replies: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._is_broken = False
        self._is_silent = False
        self._there_at = self._back_at = 0.0

    async def connect(self) -> None:
        world, network = self._network.world, self._network
        arrived = self.loop.create_future()
        self._there(lambda: arrived.done() or arrived.set_result(None))
        await arrived
        if self._is_broken:
            raise exceptions.ConnectionError("connection refused")
        if self._weather.loss and world.chance.random() < self._weather.loss:
            network.disturb(self.loop)
            raise exceptions.ConnectionError("connection reset")
        self.is_connected = True

    async def disconnect(self, nowait: bool = False) -> None:
        self.is_connected = False
        self._is_broken = True
        self._network.forget(self)
        self._there(lambda: self._network.peer.leave(self._session))

    def pack_commands(self, commands: Any) -> list[Any]:
        return [tuple(command) for command in commands]

    async def send_command(self, *command: Any) -> None:
        await self.send_packed_command([command])

    async def send_packed_command(self, commands: list[Any], check_health: bool = False) -> None:
        if self._is_broken:
            raise exceptions.ConnectionError("connection closed")
        if self._is_silent:
            return
        chance = self._network.world.chance.random
        loss = self._weather.loss
        if loss and chance() < loss:
            self._network.disturb(self.loop)
            kept = int(chance() * (len(commands) + 1))
            self._there(lambda: self._execute(commands[:kept]))
            if chance() < 0.5:
                self._is_silent = True
            else:
                self._there(self.break_off)
            return
        if len(commands) > 1 and chance() < 0.1:
            cut = 1 + int(chance() * (len(commands) - 1))
            first, commands = commands[:cut], commands[cut:]
            self._there(lambda: self._execute(first))
            self._there_at += chance() * 0.002
        self._there(lambda: self._execute(commands))

    async def read_response(self, timeout: float | None = None, **_: Any) -> Any:
        while not self._replies:
            if self._is_broken:
                raise exceptions.ConnectionError("connection closed by server")
            self._reader = self.loop.create_future()
            if timeout is None:
                await self._reader
                continue
            try:
                async with asyncio.timeout(timeout):
                    await self._reader
            except TimeoutError:
                return None
        reply = self._replies.popleft()
        if isinstance(reply, exceptions.ResponseError):
            raise reply
        return reply

    async def read_replies(self, count: int) -> list[Any]:
        replies = []
        for _ in range(count):
            try:
                replies.append(await self.read_response())
            except exceptions.ResponseError as error:
                replies.append(error)
        return replies

    async def can_read(self, timeout: float = 0) -> bool:
        if self._is_broken:
            raise exceptions.ConnectionError("connection closed by server")
        return bool(self._replies)

    def break_off(self) -> None:
        """Let both ends notice that the connection is broken."""
        self._is_broken = True
        self.is_connected = False
        self._network.peer.leave(self._session)
        self._network.forget(self)
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done() and not self.loop.is_dead:
            reader.set_result(None)

    def _execute(self, commands: list[Any]) -> None:
        replies = [self._network.peer.run(self._session, command) for command in commands]
        weather, chance = self._weather, self._network.world.chance.random
        if weather.loss and chance() < weather.loss:
            self._network.disturb(self.loop)
            if chance() < 0.5:
                self._is_silent = True
            else:
                self._back(self.break_off)
            return
        self._back(lambda: self._arrive(replies))

    def _send_back(self, message: Any) -> None:
        self._back(lambda: self._arrive([message]))

    def _arrive(self, replies: list[Any]) -> None:
        if not self._is_broken and not self._is_silent:
            self._replies.extend(replies)
            self._wake()

    def _there(self, call: Any) -> None:
        network = self._network
        self._there_at = max(self._there_at, network.world.now + network.latency_s(self._weather))
        network.world.call_at(self._there_at, self._carry, call, True)

    def _back(self, call: Any) -> None:
        network = self._network
        self._back_at = max(self._back_at, network.world.now + network.latency_s(self._weather))
        network.world.call_at(self._back_at, self._carry, call, False)

    def _carry(self, call: Any, is_there: bool) -> None:
        network = self._network
        if self._weather.is_partitioned:
            self._weather.waiting.append(lambda: self._carry(call, is_there))
        elif is_there and network.busy_until > network.world.now:
            network.world.call_at(network.busy_until, self._carry, call, True)
        else:
            call()
