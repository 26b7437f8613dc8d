"""How well a judge model tells different answers apart: `cacheproxy judge`."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.traffic import Texts
from cacheproxy.routes.judging.judge import Judge
from cacheproxy.settings.sections import Settings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.bounds import lower_limit
from cacheproxy.upstreams.fallback import Upstreams

_CONFIDENCE = 0.95
_LEAST_PAIRS = 100

Pair = tuple[int, int]


@dataclass(frozen=True)
class Judgement:
    """What a judge made of labelled pairs.

    Attributes:
        different, told_apart: pairs that differ, and those of them that it said do.
        same, seen_same: the same for pairs that say the same.
    """

    different: int
    told_apart: int
    same: int
    seen_same: int

    @property
    def sensitivity(self) -> float:
        """The share that is told apart, at least, with 95 % confidence."""
        return lower_limit(self.told_apart, self.different, _CONFIDENCE)

    def as_text(self) -> str:
        """Return the figures, and the setting that follows from them."""
        return (
            f"told apart: {self.told_apart} of {self.different} pairs that differ\n"
            f"seen as the same: {self.seen_same} of {self.same} pairs that are\n"
            f"chat.judge_sensitivity = {int(1000 * self.sensitivity) / 1000:g}"
        )


def measure_judge(texts: Texts, settings: Settings, *, pairs: int, seed: int) -> Judgement:
    """Ask the configured judge about so many pairs of each kind, one after the other.

    Raises:
        ConfigError: there is no judge, no upstream that has it, or too few pairs.
        ApiError: it could not be asked.
    """
    rng = random.Random(seed)  # noqa: S311
    different, same = sorted(texts.different), sorted(texts.same)
    if len(different) < _LEAST_PAIRS:
        raise ConfigError(
            f"{_LEAST_PAIRS} pairs with label 0 are needed; there are {len(different)}"
        )
    model = settings.chat.judge_model
    upstreams = Upstreams(settings.all_upstreams, Metrics())
    if model is None or upstreams.first(model) is None:
        raise ConfigError("chat.judge_model must name a model that an upstream has")
    rng.shuffle(different)
    rng.shuffle(same)
    judge = Judge(upstreams, model)

    async def ask(chosen: Sequence[Pair]) -> int:
        """Return how many are taken for the same."""
        return sum(
            [
                await judge.agree(texts.texts[one], texts.texts[other])
                for one, other in tqdm(chosen, unit="pair", leave=False)
            ]
        )

    async def measure() -> Judgement:
        upstreams.start()
        try:
            apart, alike = different[:pairs], same[:pairs]
            missed = await ask(apart)
            return Judgement(len(apart), len(apart) - missed, len(alike), await ask(alike))
        finally:
            await upstreams.stop()

    return asyncio.run(measure())
