"""What can happen in a world: each step of a plan is a method of its name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cacheproxy.fairness.owner import work_for
from cacheproxy.keys import Namespace, owner_of
from cacheproxy.routes.chat.state import Cached
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.exchange import Control, ItemsRequest
from cacheproxy.stores.purges import Scope
from tests.simulation.chat import ChatModel, SimUpstream
from tests.simulation.machine import TOKENIZER, Asker, Machine, asker
from tests.simulation.model import Model, Purge
from tests.simulation.network import Network
from tests.simulation.plan import Step
from tests.simulation.redis_peer import RedisPeer
from tests.simulation.server import SimServer
from tests.simulation.world import World

NAMESPACES = (Namespace("one", "default"), Namespace("two", "default"), Namespace("two", "other"))

_CHAT = ChatDialect()


@dataclass(frozen=True)
class Asked:
    """One request of a client."""

    number: int
    namespace: Namespace
    ids: list[tuple[int, ...]]
    control: Control


@dataclass(frozen=True)
class AskedChat:
    """One request for a completion."""

    number: int
    namespace: Namespace
    question: str
    control: Control


def _ask_as(server: SimServer, asked: Asked | AskedChat) -> None:
    """Say on whose behalf the current task works, to the product as its HTTP edge does."""
    control = asked.control
    owner = owner_of(asked.namespace.id)
    work_for(owner)
    server.parts.seats.note(owner)
    asker.set(Asker(asked.number, asked.namespace, control.no_store, control.ttl_s, control.tags))


class Steps:
    """A world, and what clients, operators and nature do in it.

    Attributes:
        world, peer, network, machine, upstream: what is simulated.
        model, chat_model: judge what happens.
        servers: those that are there, or are about to be.
        retired: those that were killed or stopped.
        disk_heals_at: when the disk is well again, and what has waited for it is done.
    """

    world: World
    peer: RedisPeer
    network: Network
    machine: Machine
    upstream: SimUpstream
    model: Model
    chat_model: ChatModel
    servers: list[SimServer]
    retired: list[SimServer]
    texts: list[tuple[Namespace, str]]
    disk_heals_at: float
    numbers: int

    def tell(self, message: str) -> None:
        """Add to the story, if it is asked for."""
        if self.world.trace is not None:
            self.world.trace.append(f"{self.world.now:9.4f} {message}")

    def make_server(self, at: int) -> SimServer:
        """Return the next server at a place."""
        raise NotImplementedError

    def take(self, step: Step) -> None:
        """Let a step happen."""
        if self.world.trace is not None:
            self.tell(f"step {step.what} {step.server} {step.args}")
        server = self.servers[step.server % len(self.servers)]
        getattr(self, f"_{step.what.replace(' ', '_')}")(server, **step.args)

    def _request(
        self,
        server: SimServer,
        namespace: int,
        texts: Sequence[str],
        leaves_s: float | None = None,
        **control: Any,
    ) -> None:
        if not server.is_up:
            return
        self.numbers += 1
        space = NAMESPACES[namespace]
        self.texts += [(space, text) for text in texts]
        ids = [tuple(each) for each in TOKENIZER.encode(texts)]
        asked = Asked(self.numbers, space, ids, Control(**control))
        task = server.do(self._ask(server, asked, list(texts)))
        if leaves_s is not None:
            self.world.call_in(leaves_s, task.cancel)

    async def _ask(self, server: SimServer, asked: Asked, texts: list[str]) -> None:
        control = asked.control
        _ask_as(server, asked)
        started = self.world.now
        (route, *_) = server.embeddings.routes
        try:
            result = await route.serve(ItemsRequest(asked.namespace, texts, control))
        except Exception as error:
            self.tell(f"{server.name} request {asked.number} {error!r}")
            self.model.failed(server, asked, error)
        else:
            self.model.answered(server, asked, result, started)

    def _chat(
        self,
        server: SimServer,
        namespace: int,
        question: str,
        stream: bool = False,
        leaves_s: float | None = None,
        **control: Any,
    ) -> None:
        if not server.is_up:
            return
        self.numbers += 1
        asked = AskedChat(self.numbers, NAMESPACES[namespace], question, Control(**control))
        task = server.do(self._ask_chat(server, asked, stream))
        if leaves_s is not None:
            self.world.call_in(leaves_s, task.cancel)

    async def _ask_chat(self, server: SimServer, asked: AskedChat, stream: bool) -> None:
        assert server.completions is not None
        control, started = asked.control, self.world.now
        _ask_as(server, asked)
        messages = [{"role": "user", "content": asked.question}]
        body = {"model": "gpt", "messages": messages, "stream": stream, "temperature": 0}
        request = _CHAT.parse(json.dumps(body).encode(), max_temperature=1.0)
        try:
            answer = await server.completions.route.serve(request, asked.namespace, control, {})
            if isinstance(answer, Cached):
                self.chat_model.cached(server, asked, answer, started)
            else:
                with answer.reader as reader:
                    body = b"".join([part async for part in reader.parts()])
                self.chat_model.passed(server, asked, body)
        except Exception as error:
            self.tell(f"{server.name} request {asked.number} {error!r}")
            self.chat_model.failed(server, asked, error)

    def _upstream_fails(
        self, server: SimServer, failing: float, breaking: float, slow_s: float, seconds: float
    ) -> None:
        upstream = self.upstream
        upstream.failing, upstream.breaking, upstream.slow_s = failing, breaking, slow_s

        def recover() -> None:
            upstream.failing, upstream.breaking, upstream.slow_s = 0.0, 0.0, 0.02

        self.world.call_in(seconds, recover)

    def _learn(self, server: SimServer, count: int, wrong: float) -> None:
        if server.is_up:
            server.do(self._learn_some(server, count, wrong))

    async def _learn_some(self, server: SimServer, count: int, wrong: float) -> None:
        """Let a server see pairs with their labels, as many requests would give them."""
        (thresholds,) = server.embeddings._thresholds
        (namespace, *_), chance = NAMESPACES, self.world.chance.random
        work_for(owner_of(namespace.id))
        for _ in range(count):
            score = 0.9 + 0.08 * chance()
            verdict = thresholds.judge(namespace.id, score, None)
            self.model.seen["learn hit"] += verdict.is_hit
            if verdict.check or not verdict.is_hit:
                similarity = 0.1 if chance() < wrong else 0.99
                thresholds.observe(namespace.id, score, similarity)

    def _purge(
        self, server: SimServer, namespace: int, scope: str, is_forgotten: bool = False
    ) -> None:
        if server.is_up:
            server.do(self._purge_scope(server, NAMESPACES[namespace], scope, is_forgotten))

    async def _purge_scope(
        self, server: SimServer, namespace: Namespace, scope: str, is_forgotten: bool
    ) -> None:
        work_for(owner_of(namespace.id))
        tag = "t" if scope == "tag" else None
        key = ids = None
        if scope == "key":
            texts = [text for space, text in self.texts if space == namespace]
            if not texts:
                return
            (route, *_) = server.embeddings.routes
            key = route.key_of(namespace.id, texts[-1])
            ids = tuple(TOKENIZER.encode([texts[-1]])[0])
        purge = Purge(server, namespace, tag, ids, self.world.now)
        self.model.purges.append(purge)
        before = server.lasting_entries(Scope(namespace.id, tag, key))
        try:
            removed = await server.store.purge(Scope(namespace.id, tag, key))
        except Exception as error:
            self.tell(f"{server.name} purge failed: {error!r}")
            return
        self.tell(f"{server.name} purged {removed}")
        after = server.lasting_entries(Scope(namespace.id, tag, key))
        self.model.purged(purge, removed, before - after)
        if is_forgotten:
            self._forget_purges()

    def _kill(self, server: SimServer) -> None:
        if server.loop.is_dead:
            return
        server.kill()
        self.retired.append(server)
        at = self.servers.index(server)
        self.world.call_in(self.world.chance.random() * 0.5, self._replace, at)

    def _replace(self, at: int) -> None:
        self.servers[at] = self.make_server(at)

    def _restart(self, server: SimServer) -> None:
        if not server.is_up:
            return
        self.retired.append(server)
        at = self.servers.index(server)
        server.stop(lambda: self.world.call_in(0.01, self._replace, at))

    def _freeze(self, server: SimServer, seconds: float) -> None:
        server.loop.freeze(seconds)
        self.network.disturb(server.loop)
        self.world.call_in(seconds, self.network.disturb, server.loop)

    def _clock(self, server: SimServer, seconds: float) -> None:
        server.loop.wall_offset_s += seconds
        self.model.offsets_s.append(server.loop.wall_offset_s)

    def _redis_clock(self, server: SimServer, seconds: float) -> None:
        self.peer.clock_offset_s += seconds
        self.model.offsets_s.append(self.peer.clock_offset_s)

    def _evict(self, server: SimServer) -> None:
        if self.world.chance.random() < 0.5:
            self._forget_purges()
            return
        entries = sorted(self.peer.entries())
        if entries:
            name = self.world.chance.choice(entries)
            held = self.peer.entries()[name]
            one = self.machine.of_stored(held)
            if one is not None and one.by is not None:
                self.model.evicted.add((one.by.namespace, one.ids))
            self.peer.forget(name)

    def _forget_purges(self) -> None:
        """Let Redis evict some of what it keeps of purges."""
        for name in self.peer.notes_of_purges():
            if self.world.chance.random() < 0.7:
                self.peer.forget(name)

    def _cut(self, server: SimServer) -> None:
        self.network.cut(server.loop)

    def _partition(self, server: SimServer, seconds: float) -> None:
        self.network.partition(server.loop)
        self.world.call_in(seconds, self.network.heal, server.loop)

    def _weather(
        self, server: SimServer, slow: float, slow_s: float, loss: float, seconds: float
    ) -> None:
        weather = self.network.of(server.loop)
        weather.slow, weather.slow_s, weather.loss = slow, slow_s, loss
        self.network.disturb(server.loop)

        def clear() -> None:
            weather.slow = weather.loss = 0.0
            self.network.disturb(server.loop)

        self.world.call_in(seconds, clear)

    def _redis_freezes(self, server: SimServer, seconds: float) -> None:
        self.network.freeze(seconds)
        for one in self.servers:
            self.network.disturb(one.loop)
            self.world.call_in(seconds, self.network.disturb, one.loop)

    def _machine(self, server: SimServer, slow_s: float, seconds: float) -> None:
        self.machine.slow_s = slow_s
        self.world.call_in(seconds, setattr, self.machine, "slow_s", 0.0)

    def _refuse(self, server: SimServer, seconds: float) -> None:
        self.machine.refusing.add(server.loop)
        self.world.call_in(seconds, self.machine.refusing.discard, server.loop)

    def _fail(self, server: SimServer, seconds: float) -> None:
        self.machine.failing = 0.3
        self.world.call_in(seconds, setattr, self.machine, "failing", 0.0)

    def _disk(self, server: SimServer, pause_s: float, seconds: float) -> None:
        self.world.disk_pause_s = pause_s
        # What waits for the disk by then is done after it.
        self.disk_heals_at = self.world.now + seconds + 8 * pause_s
        self.world.call_in(seconds, setattr, self.world, "disk_pause_s", 0.0)
