"""Puts a world's clocks and its chance in the place of the standard library's.

The product takes its clocks and its chance from the standard library: as a default of a parameter,
or where it uses them. While a world runs, both lead here, on this thread; so no code of the product
has to know of the simulation, and none can be forgotten without a replay showing it.
"""

import importlib
import os
import pkgutil
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import cacheproxy
from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.fairness.owner import current_owner
from cacheproxy.fairness.turns import Turns
from tests.simulation.world import World

_PACKAGES = ("concurrency", "fairness", "inference", "probes", "routes", "server", "stores")
_PACKAGES += ("telemetry", "thresholds", "tiers", "upstreams")

_world: World | None = None
_thread = 0


def _stand_in(real: Any, simulated: Any) -> Any:
    def either(*args: Any) -> Any:
        world = _world
        if world is None or threading.get_ident() != _thread:
            return real(*args)
        return simulated(world, *args)

    return either


def _random(world: World, *seed: Any) -> random.Random:
    return _Random(*(seed or (world.chance.getrandbits(64),)))


_Random = random.Random
_REAL_TIME = time.time
_STAND_INS: dict[Any, Any] = {
    time.time: lambda world: world.wall(),
    time.monotonic: lambda world: world.monotonic(),
    time.perf_counter: lambda world: world.monotonic(),
    time.thread_time: lambda world: 0.0,
    random.random: lambda world: world.chance.random(),
    random.uniform: lambda world, *args: world.chance.uniform(*args),
    random.choice: lambda world, *args: world.chance.choice(*args),
    random.Random: _random,
    secrets.token_hex: lambda world, *args: world.chance.randbytes(*args).hex(),
    os.urandom: lambda world, size: world.chance.randbytes(size),
}
_STAND_INS = {real: _stand_in(real, simulated) for real, simulated in _STAND_INS.items()}
_NAMED = {
    time: ("time", "monotonic", "perf_counter", "thread_time"),
    random: ("random", "uniform", "choice", "Random"),
    secrets: ("token_hex",),
    os: ("urandom",),
}
_named = [
    (module, name, getattr(module, name)) for module, names in _NAMED.items() for name in names
]


def _modules() -> Iterator[ModuleType]:
    for package in _PACKAGES:
        root = importlib.import_module(f"cacheproxy.{package}")
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            yield importlib.import_module(found.name)


def _functions() -> Iterator[FunctionType]:
    for module in _modules():
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__.startswith(cacheproxy.__name__):
                yield from (each for each in vars(value).values() if isinstance(each, FunctionType))


_with_defaults = [
    (function, name, default)
    for function in set(_functions())
    for name, default in (function.__kwdefaults__ or {}).items()
    if callable(default) and default in _STAND_INS
]


async def _run_job(self: JobThread, call: Any) -> Any:
    """Run a job on a thread of the simulated process."""
    world = _world
    assert world is not None
    loop = world.loop
    assert loop is not None
    thread = loop.threads.get(id(self))
    if thread is None:
        thread = loop.threads[id(self)] = _Thread(loop)
    return await thread.run(call)


class _Thread:
    """Does jobs one after the other, each in a moment of its own, in the owners' turns."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._jobs = Turns[tuple[Any, Any]]()
        self._is_busy = False

    async def run(self, call: Any) -> Any:
        done = self._loop.create_future()
        self._jobs.put(current_owner(), (call, done))
        self._next()
        return await done

    def _next(self) -> None:
        if self._is_busy or not self._jobs:
            return
        world = self._loop.world
        owner, (call, done) = self._jobs.pop()
        takes_s = 2e-5
        self._is_busy = True
        if not done.cancelled():
            takes_s += world.chance.random() * (1e-4 + world.disk_pause_s)
            self._jobs.charge(owner, takes_s)
        world.call_in(takes_s, self._do, call, done)

    def _do(self, call: Any, done: Any) -> None:
        world = self._loop.world
        self._is_busy = False
        if self._loop.is_dead:
            return
        if not done.cancelled():
            world.loop = self._loop  # its clock
            try:
                result = call()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)
            finally:
                world.loop = None
        self._next()


@contextmanager
def nature_of(world: World) -> Iterator[None]:
    """Let the product live in a world."""
    global _world, _thread
    _world, _thread = world, threading.get_ident()
    run = JobThread.run
    for module, name, real in _named:
        setattr(module, name, _STAND_INS[real])
    for function, name, real in _with_defaults:
        function.__kwdefaults__[name] = _STAND_INS[real]
    JobThread.run = _run_job
    try:
        yield
    finally:
        JobThread.run = run
        for function, name, real in _with_defaults:
            function.__kwdefaults__[name] = real
        for module, name, real in _named:
            setattr(module, name, real)
        _world = None
