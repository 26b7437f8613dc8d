"""Round trips to a Redis Cluster: each command goes to the node that holds its key, all at once.

The nodes themselves say which node holds which keys. They are asked again when a node redirects a
command or does not answer. A node that does not answer fails the call, just as Redis by default
considers a cluster down that has lost a part of its keys.
"""

import asyncio
import logging
import math
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from redis import exceptions
from redis.asyncio.connection import Connection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.stores.redis.link import (
    Ask,
    Command,
    Part,
    RedisLink,
    as_store_error,
    connect,
)
from cacheproxy.stores.redis.nodes.gate import Gate
from cacheproxy.stores.redis.nodes.naming import choose_tag
from cacheproxy.stores.redis.url import Address, ClusterNodes

_log = logging.getLogger(__name__)

_LOOK_S = 2.0
_LOOK_AGAIN_S = 0.2
"""The least time between two queries of the cluster's layout."""

_PING_S = 1.0
_COMMANDS_PER_DEADLINE = 128

_KEYLESS = ("PUBLISH", "TIME", "PING")


class NodeAway(exceptions.ResponseError):
    """In the place of a reply: its node does not answer."""


_AWAY = NodeAway("Redis: the node does not answer")


class ClusterLink:
    """One link to each master of a cluster; used from one event loop.

    Attributes:
        unanswered: nodes that `ask_open` went on without, one for each of its calls.
    """

    def __init__(
        self,
        nodes: ClusterNodes,
        *,
        home: str,
        max_connections: int,
        node_deadline_s: float = math.inf,
    ) -> None:
        """Prepare the link.

        Args:
            nodes: the first addresses to try, and how to connect to nodes.
            home: a key; its node serves conversations and commands without a key.
            max_connections: for each node; further calls wait for a connection.
            node_deadline_s: how long a node may take for 128 commands of `ask_open`.
        """
        self._nodes = nodes
        self._home = key_slot(home.encode())
        self._max_connections = max_connections
        self._node_deadline_s = node_deadline_s
        self.unanswered = 0
        self._links: dict[Address, RedisLink] = {}  # also to nodes that left
        self._gates: dict[Address, Gate] = {}
        self._masters: list[Address] = []
        self._by_slot: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._failure: StoreError | None = StoreError("the cluster was not reached", "connection")
        self._from_home = weakref.WeakSet[Connection]()
        self._is_said = False
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._is_closed = False

    async def open(self) -> bool:
        """Return whether the cluster can be reached; if not, calls try again."""
        await self._look()
        return self._failure is None

    async def close(self) -> None:
        """Close the connections; no call may be in progress."""
        self._is_closed = True
        await stop_tasks(self._looking)
        for gate in self._gates.values():
            await gate.close()
        for link in self._links.values():
            await link.close()

    def check(self) -> None:
        """Return if a call may be tried.

        Raises:
            StoreError: the link is closed, or the last attempt to reach a node failed.
        """
        if self._is_closed:
            raise StoreError("the store is closed")
        if self._failure is not None:
            self.look_soon()
            raise StoreError(str(self._failure), self._failure.kind)

    @property
    def parts(self) -> list[RedisLink]:
        """The links to all masters, each of which holds a part of the keys."""
        return [self._links[address] for address in self._masters]

    def tagged_parts(self) -> list[Part]:
        """Return the links to all masters, each with a tag of its keys."""
        return [
            Part(link, choose_tag(self.slots_of(address), ()))
            for address, link in self.masters.items()
        ]

    @property
    def masters(self) -> dict[Address, RedisLink]:
        """The links to all masters, by address."""
        return {address: self._links[address] for address in self._masters}

    def slots_of(self, address: Address) -> Sequence[int]:
        """Return the slots that a master holds, in order; looks at all slots."""
        return [slot for slot, holder in enumerate(self._by_slot) if holder == address]

    def holder(self, slot: int) -> Address | None:
        """Return the master that holds a slot; None if that is not known."""
        return self._by_slot[slot]

    def make_connection(self) -> Connection:
        """Return a new connection to the node of `home`, or to any node if that is unknown."""
        # The caller may just have lost its connection because the node changed.
        self.look_soon()
        address = self._by_slot[self._home] or random.choice(self._nodes.seeds)  # noqa: S311
        connection = self._nodes.make_connection(address)
        self._from_home.add(connection)
        return connection

    async def ask_open(self, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
        """Return the replies as `ask`; those of a node that does not answer are `NodeAway`.

        Such a node is asked again only when it answers a test, and its commands count in
        `unanswered` until then.

        Raises:
            StoreError: no node answered, and there is none that might.
        """
        self.check()
        places = self._places(commands)
        asked = {address: of for address, of in places.items() if self._gate(address).is_open}
        calls = [
            self._gate(address).pass_through(
                partial(
                    self._links[address].ask,
                    [commands[place] for place in of],
                    timeout_s=timeout_s,
                ),
                self._node_deadline_s * math.ceil(len(of) / _COMMANDS_PER_DEADLINE),
            )
            for address, of in asked.items()
        ]
        answers = await self._wait_for_all(calls)
        replies: list[Any] = [_AWAY] * len(commands)
        failure = StoreError(str(_AWAY), "unavailable")
        answered = 0
        for of, answer in zip(asked.values(), answers, strict=True):
            if isinstance(answer, StoreError):
                failure = answer
                continue
            if isinstance(answer, BaseException):
                raise answer
            answered += 1
            for place, reply in zip(of, answer, strict=True):
                replies[place] = reply
        self.unanswered += len(places) - answered
        if answered < len(places):
            self.look_soon()
        others = [one for one in self._masters if one not in asked and self._gate(one).is_open]
        if not answered and not others:
            raise failure
        return replies

    async def _wait_for_all(
        self, calls: Sequence[Awaitable[list[Any]]]
    ) -> list[list[Any] | BaseException]:
        """Return what each call to a node gave or raised; none continues after this."""
        try:
            return await asyncio.gather(*calls, return_exceptions=True)
        except asyncio.CancelledError:
            self.look_soon()  # by a deadline: a node does not answer
            raise

    def _places(self, commands: Sequence[Command]) -> dict[Address, list[int]]:
        """Return which of the commands each node is asked."""
        places: dict[Address, list[int]] = {}
        for place, slot in enumerate(_slots(commands, self._home)):
            places.setdefault(self._address(slot), []).append(place)
        return places

    def _gate(self, address: Address) -> Gate:
        if address not in self._gates:
            link = self._links[address]
            self._gates[address] = Gate(
                f"{address[0]}:{address[1]}", lambda: link.ask([("PING",)], timeout_s=_PING_S)
            )
        return self._gates[address]

    async def ask(self, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
        """Return the replies to the commands, in one round trip to each node that they concern.

        Each command goes to the node of its first argument; the commands between MULTI and EXEC
        are for one node. A command that Redis refused has a `redis.exceptions.ResponseError` in
        its reply's place, `AskError` if its key has moved to another node.

        Raises:
            StoreError: a node could not be asked or did not reply to all; some may have run.
        """
        self.check()
        places = self._places(commands)
        asked = [
            self._links[address].ask([commands[place] for place in of_node], timeout_s=timeout_s)
            for address, of_node in places.items()
        ]
        answers = await self._wait_for_all(asked)
        replies: list[Any] = [None] * len(commands)
        for of_node, answer in zip(places.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                self.look_soon()
                raise answer
            for place, reply in zip(of_node, answer, strict=True):
                replies[place] = reply
        if any(
            isinstance(reply, exceptions.AskError | exceptions.ClusterDownError)
            for reply in replies
        ):
            self.look_soon()
        return replies

    @asynccontextmanager
    async def conversation(self, *, timeout_s: float) -> AsyncIterator[Ask]:
        """Yield a function that asks the node of `home` on one connection, for WATCH.

        Raises:
            StoreError: as `ask`; `timeout_s` bounds the whole block.
        """
        self.check()
        try:
            async with self._links[self._address(self._home)].conversation(
                timeout_s=timeout_s
            ) as ask:
                yield ask
        except (StoreError, asyncio.CancelledError):
            self.look_soon()
            raise

    def _address(self, slot: int) -> Address:
        address = self._by_slot[slot]
        if address is None:
            self.look_soon()
            raise StoreError("Redis: no node of the cluster holds some keys", "unavailable")
        return address

    def look_soon(self) -> None:
        """Read the layout again in the background, after a node did not answer as expected."""
        if self._looking is None and not self._is_closed:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("cannot read the layout of the cluster: %r", error)

    async def _look(self) -> None:
        """Ask one node after the other for the layout of the cluster, until one answers."""
        await asyncio.sleep(max(0.0, self._looked_at + _LOOK_AGAIN_S - time.monotonic()))
        self._looked_at = time.monotonic()
        known = list(dict.fromkeys([*self._masters, *self._nodes.seeds]))
        # In random order, so that a node that is cut off is not always asked first.
        random.shuffle(known)
        for address in known:
            try:
                async with asyncio.timeout(_LOOK_S):
                    by_slot = await self._read_slots(address)
            except (StoreError, TimeoutError) as error:
                failure = error if isinstance(error, StoreError) else as_store_error(error)
                continue
            await self._take(by_slot)
            return
        if not self._is_said:
            _log.warning("cannot reach any node of the cluster, trying again: %s", failure)
        self._is_said = True
        self._failure = failure

    async def _take(self, by_slot: list[Address | None]) -> None:
        self._masters = sorted({address for address in by_slot if address is not None})
        for address in self._masters:
            if address not in self._links:
                pool = self._nodes.make_pool(address)
                self._links[address] = RedisLink(pool, max_connections=self._max_connections)
        self._by_slot = by_slot
        self._failure = None
        if self._is_said:
            _log.info("the cluster can be reached again")
        self._is_said = False
        for address, link in self._links.items():
            if address not in self._masters:  # it may be frozen or cut off, and writes wait for it
                await link.hang_up()
        home = by_slot[self._home]
        for connection in list(self._from_home):
            # A node that has left the cluster answers pings, but publishes no notices.
            if connection.is_connected and (connection.host, connection.port) != home:
                await connection.disconnect(nowait=True)

    async def _read_slots(self, address: Address) -> list[Address | None]:
        """Return each slot's master, according to the node at the address.

        Raises:
            StoreError: the node gave no layout.
        """
        connection = self._nodes.make_connection(address)
        if error := await connect(connection):
            raise error
        try:
            await connection.send_command("CLUSTER", "SLOTS")
            reply = await connection.read_response()
            by_slot: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
            for first, last, (host, port, *_), *_ in reply:
                # Without a host, the node means the address at which it was reached.
                master = ((host or b"").decode() or address[0], int(port))
                by_slot[first : last + 1] = [master] * (last + 1 - first)
        except Exception as error:
            # Any exception: replies that are not Redis' protocol may raise anything.
            raise as_store_error(error) from error
        finally:
            await connection.disconnect(nowait=True)
        if by_slot.count(None) == len(by_slot):
            raise StoreError("Redis: the node belongs to no cluster yet", "unavailable")
        return by_slot


def _slots(commands: Sequence[Command], home: int) -> list[int]:
    """Return each command's slot; a transaction has that of its first key."""
    slots: list[int] = []
    in_transaction: int | None = None
    for place, command in enumerate(commands):
        if command[0] == "MULTI":
            in_transaction = _slot(commands[place + 1], home)
        slots.append(_slot(command, home) if in_transaction is None else in_transaction)
        if command[0] == "EXEC":
            in_transaction = None
    return slots


def _slot(command: Command, home: int) -> int:
    if command[0] in _KEYLESS:
        return home
    key = command[1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())
