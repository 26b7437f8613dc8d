"""Compares peers with cacheproxy: one closed-loop scenario, several rounds, ratios within a round.

A shared machine may be slower for a while. So each round measures all servers, one after the other,
and ratios are taken within the round.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tqdm import tqdm

from ..client.fleet import Assignment
from ..errors import NotAnswered
from ..results.result import Result
from ..run import run
from ..servers.processes import free_port, running
from ..servers.served import Served
from ..traffic.scenario import Scenario, load_scenario
from ..traffic.target import Target
from .infinity import INFINITY
from .install import fetch_model, install
from .litellm import LITELLM
from .peer import Peer, Place
from .sentence_transformers import SENTENCE_TRANSFORMERS

PEERS = {"litellm": LITELLM, "infinity": INFINITY, "sentence-transformers": SENTENCE_TRANSFORMERS}

OURS = "cacheproxy"


@dataclass(frozen=True)
class Bench:
    """What all servers have in common.

    Attributes:
        work: folder for environments and the model.
        home: where cacheproxy's models live.
        scenario: its phases are compared.
    """

    work: Path
    home: Path
    scenario: Scenario

    def measure_ours(self) -> Result:
        """Return the result of cacheproxy."""
        with Served(self.home, "all-MiniLM-L6-v2", self.scenario.flags) as served:
            return self._measure(OURS, Target(served.url, "all-MiniLM-L6-v2"), self.scenario)

    def measure(self, peer: Peer) -> Result:
        """Return the result of a peer, in the phases in which it can be compared."""
        phases = tuple(phase for phase in self.scenario.phases if phase.name in peer.phases)
        scenario = msgspec.structs.replace(self.scenario, phases=phases, flags=())
        if "hits" not in peer.phases:
            scenario = msgspec.structs.replace(scenario, known_texts=0)
        with self._serving(peer) as url:
            target = Target(url, peer.model, float_vectors=True)
            return self._measure(peer.name, target, scenario)

    def _measure(self, name: str, target: Target, scenario: Scenario) -> Result:
        result = run(name, Assignment(scenario, target), 1, None)
        if result.failures:
            raise NotAnswered(f"{name}: {'; '.join(result.failures)}")
        return result

    @contextmanager
    def _serving(self, peer: Peer) -> Iterator[str]:
        with Served(self.home, "all-MiniLM-L6-v2", self.scenario.flags) as upstream:
            folder = self.work / "run"
            folder.mkdir(parents=True, exist_ok=True)
            port = free_port()
            place = Place(
                python=install(peer, self.work),
                folder=folder,
                model=fetch_model(self.work),
                port=port,
                upstream=upstream.url,
            )
            url = f"http://127.0.0.1:{port}"
            command = peer.command(place)
            with running(command, url, peer.ready_path, environment=peer.environment):
                yield url


def compare_peers(names: Sequence[str], work: Path, home: Path, rounds: int, is_smoke: bool) -> str:
    """Return the table of peers beside cacheproxy.

    Raises:
        NotInstalled: a peer cannot be installed.
        NotAnswered: a request was not answered with 2xx.
    """
    scenario = load_scenario("peers")
    bench = Bench(work, home, scenario.as_smoke_test() if is_smoke else scenario)
    peers = [PEERS[name] for name in names]
    for peer in peers:
        install(peer, work)
    found: list[dict[str, Result]] = []
    for _ in tqdm(range(rounds), desc="rounds"):
        results = {OURS: bench.measure_ours()}
        for peer in peers:
            results[peer.name] = bench.measure(peer)
        found.append(results)
    return "\n".join(_lines(peers, found))


def _lines(peers: Sequence[Peer], rounds: Sequence[dict[str, Result]]) -> Iterator[str]:
    yield (
        f"{'server':38}{'phase':10}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'ours to it':>12}  in {len(rounds)} rounds"
    )
    for phase in rounds[0][OURS].phases:
        yield _line(OURS, phase.name, rounds, "")
        for peer in peers:
            if phase.name in peer.phases:
                ratios = sorted(
                    _figure(one[OURS], phase.name, "answered_per_s")
                    / _figure(one[peer.name], phase.name, "answered_per_s")
                    for one in rounds
                )
                spread = f"{statistics.median(ratios):11.1f}x  {ratios[0]:.1f} to {ratios[-1]:.1f}"
                yield _line(peer.name, phase.name, rounds, spread)


def _line(name: str, phase: str, rounds: Sequence[dict[str, Result]], spread: str) -> str:
    rate, p50, p99 = (
        statistics.median(_figure(one[name], phase, figure) for one in rounds)
        for figure in ("answered_per_s", "p50_ms", "p99_ms")
    )
    return f"{name:38}{phase:10}{rate:11.0f}{p50:9.2f}{p99:9.2f}{spread}"


def _figure(result: Result, phase: str, figure: str) -> float:
    found = next(one for one in result.phases if one.name == phase)
    return found.streams[0].figures[figure]
