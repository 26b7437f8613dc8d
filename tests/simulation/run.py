"""Runs one plan: builds its world, lets it happen, and hands back what the model says of it."""

import atexit
import gc
import hashlib
import json
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import Any

from cacheproxy.keys import Namespace, hex_id
from cacheproxy.routes.chat.staleness import Staleness
from cacheproxy.routes.chat.state import Cached
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.exchange import Control, ItemsRequest
from cacheproxy.settings.settings import Settings
from cacheproxy.stores.embedded import notices, rows
from cacheproxy.stores.purges import Scope
from cacheproxy.thresholds.sharing import evidence_name
from tests.simulation.chat import ChatModel, SimUpstream
from tests.simulation.machine import INSTALLED, TOKENIZER, Asker, Machine, asker
from tests.simulation.model import Model, Purge
from tests.simulation.nature import nature_of
from tests.simulation.network import Network
from tests.simulation.plan import Plan, Step
from tests.simulation.redis_peer import RedisPeer
from tests.simulation.server import SimServer
from tests.simulation.world import Stuck, World

NAMESPACES = (Namespace("one", "default"), Namespace("two", "default"), Namespace("two", "other"))

_SETTLE_S = 14.0
"""How long all is well before the end: longer than anything may take to recover."""

_RUNS_PER_COLLECTION = 20

_AMBUSHES = 0.3
"""The share of writes at which a plan's ambush strikes."""

_LOG = logging.getLogger("cacheproxy")


@dataclass
class Outcome:
    """How a world ended.

    Attributes:
        broken: rule and message of each rule that was broken; none if all is well.
        digest: of all that happened: equal for equal runs.
        seen: how often what happened.
        trace: what happened, if it was asked for.
    """

    broken: list[tuple[str, str]]
    digest: str
    seen: Counter[str]
    trace: list[str] = field(default_factory=list)


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


_CHAT = ChatDialect()


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


class _Play:
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

    def tell(self, message: str) -> None:
        if self.world.trace is not None:
            self.world.trace.append(f"{self.world.now:9.4f} {message}")

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
        self._until(max(world.now, self.disk_heals_at) + _SETTLE_S)
        live = [server for server in self.servers if server.is_up]
        for server in self.servers:
            if not server.is_up and server.killed_at is None:
                self.model.breaks("settled", f"{server.name} has not started")
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
        self.world.run(lambda: bool(reached))

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

    # Steps.

    def take(self, step: Step) -> None:
        """Let a step happen."""
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
        asker.set(
            Asker(asked.number, asked.namespace, control.no_store, control.ttl_s, control.tags)
        )
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
        asker.set(
            Asker(asked.number, asked.namespace, control.no_store, control.ttl_s, control.tags)
        )
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
        for _ in range(count):
            score = 0.9 + 0.08 * chance()
            verdict = thresholds.judge(namespace.id, score, None)
            self.model.seen["learn hit"] += verdict.is_hit
            if verdict.check or not verdict.is_hit:
                similarity = 0.1 if chance() < wrong else 0.99
                thresholds.observe(namespace.id, score, similarity)

    def _purge(self, server: SimServer, namespace: int, scope: str) -> None:
        if server.is_up:
            server.do(self._purge_scope(server, NAMESPACES[namespace], scope))

    async def _purge_scope(self, server: SimServer, namespace: Namespace, scope: str) -> None:
        tag = "t" if scope == "tag" else None
        key = ids = None
        if scope == "key":
            texts = [text for space, text in self.texts if space == namespace]
            if not texts:
                return
            (route, *_) = server.embeddings.routes
            key = route.key_of_text(namespace.id, texts[-1])
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
        entries = sorted(self.peer.entries())
        if entries:
            name = self.world.chance.choice(entries)
            held = self.peer.entries()[name]
            one = self.machine.of_stored(held)
            if one is not None and one.by is not None:
                self.model.evicted.add((one.by.namespace, one.ids))
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


@contextmanager
def _small_slices() -> Iterator[None]:
    """Let the embedded store work in slices of two rows, so that small worlds have many."""
    before = rows.WRITE_ROWS
    rows.WRITE_ROWS = notices.WRITE_ROWS = 2
    try:
        yield
    finally:
        rows.WRITE_ROWS = notices.WRITE_ROWS = before


_runs = count(1)
_over: list[_Play] = []


@contextmanager
def _no_collection(play: _Play) -> Iterator[None]:
    """Keep the garbage collector out of a world: when it runs depends on what ran before."""
    was_collecting = gc.isenabled()
    gc.disable()
    number = next(_runs)
    if number == 1:
        gc.freeze()  # what was imported is not looked through again
    try:
        yield
    finally:
        _over.append(play)
        if number % _RUNS_PER_COLLECTION == 0:
            _collect()
        if was_collecting:
            gc.enable()


def _collect() -> None:
    """Remove the processes that were killed; what they complain of at their end is no news."""
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            _over.clear()
            gc.collect()
    finally:
        logging.disable(logging.NOTSET)
        sys.unraisablehook = before


atexit.register(_collect)


class _Heard(logging.Handler):
    """Takes log lines that tell of exceptions which nobody expected."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.world.blame("unexpected", f"{record.getMessage()} {error!r}")


def run(plan: Plan, *, without: str | None = None, is_traced: bool = False) -> Outcome:
    """Let a plan happen, judged by all rules but one."""
    play = _Play(plan, without, is_traced=is_traced)
    world, model = play.world, play.model
    heard = _Heard(world)
    _LOG.addHandler(heard)
    propagates, _LOG.propagate = _LOG.propagate, False
    try:
        with warnings.catch_warnings(), _no_collection(play), nature_of(world), _small_slices():
            warnings.simplefilter("ignore", RuntimeWarning)  # of tasks that were killed
            try:
                play.play()
            except Stuck as error:
                model.breaks("answered", str(error))
            world.end()
    finally:
        _LOG.removeHandler(heard)
        _LOG.propagate = propagates
    model.finish()
    told = f"{world.now!r} {world.steps} {play.peer.commands} {sorted(model.seen.items())}"
    digest = hashlib.sha256(f"{told} {model.broken}".encode()).hexdigest()[:16]
    return Outcome(model.broken, digest, model.seen, world.trace or [])
