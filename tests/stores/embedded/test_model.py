"""The embedded store does what a dict with expiries does, whatever the order of calls."""

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Entry, Partition

PARTITIONS = [Partition("a" * 32, "model"), Partition("b" * 32, "model")]
KEYS = [hashlib.sha256(bytes([n])).digest() for n in range(8)]
_ROWS = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
PROBES = list(_ROWS / np.linalg.norm(_ROWS, axis=1, keepdims=True))


class Modelled(NamedTuple):
    record: bytes
    partition: Partition
    expires_at: float
    probe: int | None


writes = st.builds(
    Modelled,
    record=st.binary(max_size=40),
    partition=st.sampled_from(PARTITIONS),
    expires_at=st.sampled_from([-1.0, 1.0, 5.0, 50.0]),
    probe=st.none() | st.integers(0, len(PROBES) - 1),
)


class StoreMachine(RuleBasedStateMachine):
    in_memory = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.time = 1000.0
        self.model: dict[bytes, Modelled] = {}
        self.start()

    def start(self) -> None:
        path = None if self.in_memory else Path(self.folder.name, "cache.sqlite")
        self.store = EmbeddedStore(path, max_bytes=2**30, now=lambda: self.time)
        self.runner.run(self.store.open())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    def live(self) -> dict[bytes, Modelled]:
        return {key: entry for key, entry in self.model.items() if entry.expires_at > self.time}

    @rule(batch=st.lists(st.tuples(st.sampled_from(KEYS), writes), max_size=6))
    def put(self, batch: list[tuple[bytes, Modelled]]) -> None:
        timed = [
            (key, entry._replace(expires_at=self.time + entry.expires_at)) for key, entry in batch
        ]
        entries = [
            Entry(
                key,
                entry.partition,
                entry.record,
                entry.expires_at,
                (entry.record.hex(),),
                None if entry.probe is None else PROBES[entry.probe],
            )
            for key, entry in timed
        ]
        self.runner.run(self.store.put_many(entries))
        self.model |= dict(timed)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 10.0]))
    def let_pass(self, seconds: float) -> None:
        self.time += seconds

    @rule()
    def sweep(self) -> None:
        self.runner.run(self.store.sweep())
        assert self.store.stats().entries == len(self.live())

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        if self.in_memory:
            self.model.clear()
        self.start()

    @invariant()
    def keys_give_what_lives(self) -> None:
        live = self.live()
        expected = [live[key].record if key in live else None for key in KEYS]
        assert self.runner.run(self.store.get_many(KEYS)) == expected

    @invariant()
    def nearest_gives_the_best_of_what_lives(self) -> None:
        for partition in PARTITIONS:
            found = self.runner.run(self.store.nearest(partition, np.stack(PROBES)))
            candidates = {
                key: entry
                for key, entry in self.live().items()
                if entry.partition == partition and entry.probe is not None
            }
            for query, neighbour in zip(PROBES, found, strict=True):
                scores = {k: float(query @ PROBES[e.probe]) for k, e in candidates.items()}
                if not candidates:
                    assert neighbour is None
                    continue
                assert neighbour is not None
                assert neighbour.record == candidates[neighbour.key].record
                assert neighbour.score == pytest.approx(scores[neighbour.key], abs=1e-6)
                assert neighbour.score == pytest.approx(max(scores.values()), abs=1e-6)


class MemoryMachine(StoreMachine):
    in_memory = True


@pytest.mark.parametrize("machine", [StoreMachine, MemoryMachine])
def test_the_store_agrees_with_a_dict(machine):
    budget = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
    run_state_machine_as_test(machine, settings=budget)
