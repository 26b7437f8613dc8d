"""Results of load tests, made without a run."""

import numpy as np

from loadtest.client.fleet import Outline
from loadtest.client.samples import SAMPLE, TIERS
from loadtest.results.result import PhaseResult, Result, make_phase
from loadtest.traffic.scenario import Phase

SECONDS = 10


def phase_of(name: str, per_s: int, ms: float, *, refused_share: float = 0.0) -> PhaseResult:
    count = per_s * SECONDS
    samples = np.zeros(count, SAMPLE)
    samples["index"] = np.arange(count)
    samples["due_s"] = np.arange(count) / per_s
    samples["whole_us"] = 1000 * ms * np.linspace(0.5, 1, count)
    samples["status"] = np.where(np.arange(count) < refused_share * count, 503, 200)
    samples["tier"] = TIERS.index("hot")
    outline = Outline("questions", "embeddings", 1, count, (count, 0, 0, 0), b"\0" * count, True)
    return make_phase(Phase(name, SECONDS, (), may_refuse=True), [outline], samples, [], [])


def result_of(*phases, promises=(), limit=None) -> Result:
    return Result("mine", "about", "server", 0.0, 2, 1, 1, list(phases), list(promises), limit)
