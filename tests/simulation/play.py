"""One plan on its way: its world, what happens in it, and what is judged in the end."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from cacheproxy.keys import Namespace, hex_id
from cacheproxy.routes.chat.staleness import Staleness
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.sharing import evidence_name
from tests.simulation.chat import ChatModel, SimUpstream
from tests.simulation.machine import INSTALLED, Machine
from tests.simulation.model import Model
from tests.simulation.network import Network
from tests.simulation.plan import Plan
from tests.simulation.redis_peer import RedisPeer
from tests.simulation.server import SimServer
from tests.simulation.steps import NAMESPACES, Steps
from tests.simulation.world import World

_SETTLE_S = 14.0
"""How long all is well before the end: longer than anything may take to recover."""

_AMBUSHES = 0.3
"""The share of writes at which a plan's ambush strikes."""


@lru_cache(256)
def _settings(given: tuple[tuple[str, Any], ...]) -> Settings:
    named = dict(given)
    cache = {name: named[name] for name in ("hot_bytes", "ttl_s", "ttl_jitter", "deadline_ms")}
    semantic = {
        "mode": named["mode"],
        "threshold": named["threshold"],
        "probe": "static",
        "max_error": 0.2,
        "confidence": 0.9,
    }
    sections = {"cache": cache, "semantic": semantic}
    if "verdict" in named:
        sections["upstreams"] = {"up": {"base_url": "http://up/v1", "models": ["gpt"]}}
        sections["chat"] = {
            "ttl_s": named["ttl_s"],
            "hot_bytes": named["hot_bytes"],
            "stale_while_revalidate_s": named["stale_s"],
            "stale_if_error_s": named["stale_s"],
            "learning_share": 1.0,
        }
    return Settings.model_validate(sections)


class Play(Steps):
    """One plan on its way."""

    def __init__(self, plan: Plan, without: str | None, *, is_traced: bool) -> None:
        self.plan = plan
        self.world = world = World(plan.seed)
        world.trace = [] if is_traced else None
        self.machine = Machine(world)
        self.peer = RedisPeer(world)
        self.network = Network(world, self.peer)
        self.model = Model(world, self.machine, self.network, without=without)
        self.settings = _settings(tuple(sorted(plan.settings.items())))
        self.model.default_ttl_s = self.settings.cache.ttl_s
        self.upstream = SimUpstream(world, verdict=plan.settings.get("verdict", "ACCEPT"))
        chat = self.settings.chat
        stale = Staleness(chat.stale_while_revalidate_s, chat.stale_if_error_s)
        self.chat_model = ChatModel(self.model, self.upstream, ttl_s=chat.ttl_s, stale=stale)
        self.servers: list[SimServer] = []
        self.retired: list[SimServer] = []
        self.peer.on_write = self._wrote
        self.is_calm = False
        self.disk_heals_at = 0.0
        self.numbers = 0
        self.texts: list[tuple[Namespace, str]] = []
        self.names: dict[bytes, tuple[str, tuple[int, ...]]] = {}
        kinds = "0.9,0.95,0.98"
        for namespace in NAMESPACES:
            name = evidence_name(f"{INSTALLED.fingerprint}:static-1", kinds, namespace.id)
            redis_name = b"cp:{shared}:s1:" + hex_id(name).encode()
            self.model.evidence_names[redis_name] = namespace.id

    def make_server(self, at: int) -> SimServer:
        generation = sum(1 for one in self.retired if one.name.startswith(f"s{at}."))
        return SimServer(
            self.world,
            f"s{at}.{generation}",
            self.settings,
            self.machine,
            self.network,
            self.model,
            is_embedded=self.plan.kind == "embedded",
            upstream=self.upstream if self.plan.kind == "chat" else None,
            chat_judge=self.chat_model,
        )

    def play(self) -> None:
        world = self.world
        self.servers = [self.make_server(at) for at in range(self.plan.servers)]
        last = 0.0
        for step in self.plan.steps:
            world.call_at(step.at, self.take, step)
            last = max(last, step.at)
        self._until(last + 0.001)
        self._heal()
        thawed = [server.loop.frozen_until for server in self.servers]
        self._until(max(world.now, self.disk_heals_at, *thawed) + _SETTLE_S)
        live = [server for server in self.servers if server.is_up]
        for server in self.servers:
            if not server.is_up and server.killed_at is None:
                starting = server.starting
                error = starting.exception() if starting.done() else None
                self.model.breaks("settled", f"{server.name} has not started: {error!r}")
        for server in live:
            self.model.settled(server)
        stopping = [server.stop() for server in live]
        world.run(lambda: all(task.done() for task in stopping))
        for task in stopping:
            if not task.cancelled() and task.exception() is not None:
                self.model.breaks("unexpected", f"a server did not stop: {task.exception()!r}")
        if self.plan.kind != "embedded":
            self.model.stopped(self._stored(), world.now)

    def _until(self, when: float) -> None:
        reached: list[bool] = []
        self.world.call_at(when, reached.append, True)
        self.world.run(reached.__len__)

    def _wrote(self, name: bytes, value: Any) -> None:
        """Strike at the moment at which Redis has executed a write and nobody knows yet."""
        self.model.wrote(name, value)
        ambush, chance = self.plan.ambush, self.world.chance
        is_entry = isinstance(value, dict)
        if ambush is None or self.is_calm or is_entry == (ambush.what == "learn"):
            return
        if is_entry:
            struck = list(range(len(self.servers)))
        elif name in self.model.evidence_names:  # evidence is refuted where it opened the tier
            struck = [at for at, server in enumerate(self.servers) if self._is_open(server)]
        else:
            return
        if struck and chance.random() < _AMBUSHES:
            step = replace(ambush, at=self.world.now, server=chance.choice(struck))
            self.world.call_in(chance.choice((0.0, 0.0001, 0.001)), self.take, step)

    def _is_open(self, server: SimServer) -> bool:
        (namespace, *_) = NAMESPACES
        thresholds = server.embeddings._thresholds if server.is_up else []
        return any(one.is_open(namespace.id) for one in thresholds)

    def _heal(self) -> None:
        self.is_calm = True
        self.machine.slow_s = self.machine.failing = 0.0
        self.machine.refusing.clear()
        for server in self.servers:
            weather = self.network.of(server.loop)
            weather.slow = weather.loss = 0.0
            self.network.heal(server.loop)

    def _stored(self) -> set[Any]:
        stored = set()
        for held in self.peer.entries().values():
            one = self.machine.of_stored(held)
            if one is not None and one.by is not None:
                stored.add((one.by.namespace.id, one.ids))
        return stored
