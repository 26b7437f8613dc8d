"""What a full store keeps: its own eviction beside other policies, over the requests of a trace.

A trace gives the lengths of requests and answers, in their order, but not which requests are the
same. So each request asks for one of many made-up texts, by one of several patterns of popularity.
The store's policy is `stores.embedded.uses`; the optimum evicts whatever is asked for last again
(Belady 1966), S3-FIFO is that of Yang et al., SOSP 2023, with a tenth for what is new.
"""

import csv
import gzip
import heapq
import random
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from cacheproxy.stores.embedded.uses import Uses

from ..options import PATH, smoke_flag

_HEAD_BYTES = 1_264
_TOKEN_BYTES = 4
_SPARED = 3
_NEVER = 10**9


class _Request(NamedTuple):
    """What is asked for, the size of its entry, and when it is asked for again."""

    name: int
    size: int
    next_at: int


@click.command()
@smoke_flag(requests=500)
@click.option("--trace", "path", type=PATH, help="CSV with output_tokens [made-up lengths]")
@click.option("--requests", default=100_000, show_default=True, help="at most, of the trace")
@click.option("--shares", multiple=True, default=(0.05, 0.2), help="of all entries that fit")
def main(path: Path | None, requests: int, shares: Sequence[float]) -> None:
    """Hit rates of the embedded store's eviction and of other policies, simulated.

    No server is started.
    """
    rng = random.Random(1)  # noqa: S311
    if path is None:
        tokens = [min(2_000, int(rng.lognormvariate(5, 1))) for _ in range(requests)]
    else:
        tokens = _tokens(path)[:requests]
    click.echo(f"hits in %{'':16}{'room':>6}" + "".join(f"{one.name:>9}" for one in _POLICIES))
    for pattern in ("zipf", "steep", "drifting", "scanned", "recent"):
        trace = _requests(list(_names(pattern, len(tokens), rng)), tokens)
        whole = sum({one.name: one.size for one in trace}.values())
        for share in shares:
            rates = [policy(share * whole).hit_rate(trace) for policy in _POLICIES]
            cells = "".join(f"{100 * rate:9.1f}" for rate in rates)
            click.echo(f"{pattern:<25}{share:6.0%}{cells}")


def _tokens(path: Path) -> list[int]:
    is_packed = path.suffix == ".gz"
    with gzip.open(path, "rt") if is_packed else path.open(encoding="utf-8") as file:
        return [int(row["output_tokens"]) for row in csv.DictReader(file)]


def _names(pattern: str, count: int, rng: random.Random) -> Iterator[int]:
    """Yield what is asked for.

    zipf, steep: Zipf's law with an exponent of 0.8, or 1. drifting: zipf, and each twentieth of the
    time a tenth of the texts is replaced by others. scanned: steep, and every second request is
    asked once only. recent: half is asked again soon, the other half is new.
    """
    texts = max(1, count // 2)
    power = 1.0 if pattern in ("steep", "scanned") else 0.8
    ranks = rng.choices(range(texts), [(rank + 1) ** -power for rank in range(texts)], k=count)
    names, new = list(range(texts)), texts
    asked: list[int] = []
    for place, rank in enumerate(ranks):
        if pattern == "drifting" and place % max(1, count // 20) == 0:
            for changed in rng.sample(range(texts), texts // 10):
                names[changed] = new = new + 1
        is_new = pattern in ("scanned", "recent") and rng.random() < 0.5
        if is_new or (pattern == "recent" and not asked):
            name = new = new + 1
        elif pattern == "recent":
            name = asked[-1 - min(len(asked) - 1, int(rng.expovariate(1 / 1_500)))]
        else:
            name = names[rank]
        asked.append(name)
        yield name


def _requests(names: Sequence[int], tokens: Sequence[int]) -> list[_Request]:
    next_at: dict[int, int] = {}
    again = [_NEVER] * len(names)
    for place in reversed(range(len(names))):
        again[place] = next_at.get(names[place], _NEVER)
        next_at[names[place]] = place
    sizes: dict[int, int] = {}
    for name, count in zip(names, tokens, strict=True):
        sizes.setdefault(name, _HEAD_BYTES + _TOKEN_BYTES * count)
    return [_Request(name, sizes[name], at) for name, at in zip(names, again, strict=True)]


class _Fifo:
    """The oldest goes; other policies change what a use does, or what goes."""

    name = "FIFO"

    def __init__(self, most: float) -> None:
        self._most = most
        self._used = 0
        self._kept: OrderedDict[int, int] = OrderedDict()  # sizes, the next to go first

    def hit_rate(self, trace: Sequence[_Request]) -> float:
        return sum(self._ask(one) for one in trace) / len(trace)

    def _ask(self, one: _Request) -> bool:
        if one.name in self._kept:
            self._use(one)
            return True
        self._kept[one.name] = one.size
        self._used += one.size
        self._use_new(one)
        while self._used > self._most:
            self._used -= self._kept.pop(self._next_to_go())
        return False

    def _use(self, one: _Request) -> None:
        pass

    def _use_new(self, one: _Request) -> None:
        pass

    def _next_to_go(self) -> int:
        return next(iter(self._kept))


class _Store(_Fifo):
    name = "store"

    def __init__(self, most: float) -> None:
        super().__init__(most)
        self._uses = Uses(2**30)

    def _use(self, one: _Request) -> None:
        self._uses.found([_key(one.name)])

    def _next_to_go(self) -> int:
        for _ in range(_SPARED):
            oldest = next(iter(self._kept))
            if not self._uses.take(_key(oldest)):
                return oldest
            self._kept.move_to_end(oldest)
        return next(iter(self._kept))


class _Lru(_Fifo):
    name = "LRU"

    def _use(self, one: _Request) -> None:
        self._kept.move_to_end(one.name)


class _Ranked(_Fifo, ABC):
    """Whatever has the lowest rank goes."""

    def __init__(self, most: float) -> None:
        super().__init__(most)
        self._ranks: dict[int, int] = {}
        self._heap: list[tuple[int, int, int]] = []  # of equal ranks, the one used longest ago
        self._count = 0

    @abstractmethod
    def _rank(self, one: _Request) -> int: ...

    def _use(self, one: _Request) -> None:
        self._ranks[one.name] = self._rank(one)
        self._count += 1
        heapq.heappush(self._heap, (self._ranks[one.name], self._count, one.name))

    _use_new = _use

    def _next_to_go(self) -> int:
        while True:
            rank, _, name = heapq.heappop(self._heap)
            if self._ranks.get(name) == rank and name in self._kept:
                del self._ranks[name]
                return name


class _Lfu(_Ranked):
    name = "LFU"

    def _rank(self, one: _Request) -> int:
        return self._ranks.get(one.name, 0) + 1


class _Optimum(_Ranked):
    name = "optimum"

    def _rank(self, one: _Request) -> int:
        return -one.next_at


class _S3Fifo(_Fifo):
    name = "S3-FIFO"

    def __init__(self, most: float) -> None:
        super().__init__(most)
        self._uses: dict[int, int] = {}
        self._proven: OrderedDict[int, int] = OrderedDict()
        self._proven_used = 0
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def _ask(self, one: _Request) -> bool:
        if one.name in self._kept or one.name in self._proven:
            self._uses[one.name] = min(3, self._uses[one.name] + 1)
            return True
        self._uses[one.name] = 0
        if one.name in self._ghosts:
            del self._ghosts[one.name]
            self._prove(one.name, one.size)
        else:
            self._kept[one.name] = one.size
            self._used += one.size
        while self._used + self._proven_used > self._most:
            self._evict()
        return False

    def _prove(self, name: int, size: int) -> None:
        self._proven[name] = size
        self._proven_used += size

    def _evict(self) -> None:
        if self._used > 0.1 * self._most or not self._proven:
            name, size = self._kept.popitem(last=False)
            self._used -= size
            if self._uses[name]:
                self._uses[name] = 0
                self._prove(name, size)
                return
            self._ghosts[name] = None
            while len(self._ghosts) > len(self._kept) + len(self._proven):
                self._ghosts.popitem(last=False)
        else:
            name, size = self._proven.popitem(last=False)
            if self._uses[name]:
                self._uses[name] -= 1
                self._proven[name] = size
            else:
                self._proven_used -= size


def _key(name: int) -> bytes:
    # As far from each other as hashes; names are numbers in a row.
    return (name * 2_654_435_761 % 2**32).to_bytes(4, "little")


_POLICIES: tuple[type[_Fifo], ...] = (_Fifo, _Store, _Lru, _Lfu, _S3Fifo, _Optimum)
