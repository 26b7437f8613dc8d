"""Implements `cacheproxy judge`: measures a judge model on the user's own labelled pairs."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cacheproxy.errors import ConfigError
from cacheproxy.routes.judging.costs import Costs
from cacheproxy.routes.judging.judge import Judge, Pair
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.bounds import lower_limit, rate_upper_limit
from cacheproxy.thresholds.judged.evidence import Outcome
from cacheproxy.upstreams.fallback import Upstreams

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class LabelledPair:
    """A pair, and whether its answer answers its question."""

    pair: Pair
    is_right: bool


@dataclass(frozen=True)
class Judgement:
    """A judge's verdicts on labelled pairs.

    Attributes:
        wrong, wrong_rejected: pairs whose answer is wrong, and those of them that it rejected.
        right, right_rejected: the same for pairs whose answer is right.
        unreadable: replies that were neither verdict; they are not counted as verdicts.
        tokens: the total number of tokens used.
    """

    wrong: int
    wrong_rejected: int
    right: int
    right_rejected: int
    unreadable: int
    tokens: int

    def as_text(self) -> str:
        """Return the figures, with 95 % limits."""
        least = lower_limit(self.wrong_rejected, self.wrong, _CONFIDENCE)
        most = rate_upper_limit(self.right_rejected, self.right, _CONFIDENCE)
        return (
            f"rejected {self.wrong_rejected} of {self.wrong} wrong answers: at least {least:.1%}\n"
            f"rejected {self.right_rejected} of {self.right} right answers: at most {most:.1%}\n"
            f"unreadable replies: {self.unreadable}; tokens: {self.tokens:,}\n"
            "a useful judge rejects about 90 % or more of wrong and below 5 % of right answers"
        )


def read_pairs(files: Sequence[Path]) -> list[LabelledPair]:
    """Return the pairs in files of JSON lines with `question`, `answer` and `label`.

    Raises:
        ConfigError: a file cannot be read, or a line is no such pair.
    """
    pairs = []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                pair = Pair(str(row["question"]), str(row["answer"]), row.get("reference"))
                pairs.append(LabelledPair(pair, bool(row["label"])))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigError(
                    f"{path}: line {number} is not an object with question, answer and label"
                ) from None
    return pairs


def measure_judge(
    labelled: Sequence[LabelledPair], settings: Settings, *, pairs: int, seed: int
) -> Judgement:
    """Ask the configured judge about a limited number of pairs of each kind, one after the other.

    Raises:
        ConfigError: no judge is configured, or no upstream serves it.
        ApiError: the judge did not answer.
    """
    model = settings.chat.judge
    upstreams = Upstreams(settings.all_upstreams, Metrics())
    if model in {"auto", "none"} or upstreams.first(model) is None:
        raise ConfigError("chat.judge must name a model that an upstream serves")
    judge = Judge(upstreams, model, Costs({}, ()))
    draw = random.Random(seed)  # noqa: S311
    shuffled = draw.sample(labelled, len(labelled))
    chosen = [
        *[one for one in shuffled if one.is_right][:pairs],
        *[one for one in shuffled if not one.is_right][:pairs],
    ]
    tokens = 0

    def spend(purpose: str, cost: float, more: int) -> None:
        nonlocal tokens
        tokens += more

    async def measure() -> list[tuple[bool, Outcome]]:
        upstreams.start()
        try:
            return [
                (one.is_right, await judge.outcome(one.pair, "label", spend))
                for one in tqdm(chosen, unit="pair", leave=False)
            ]
        finally:
            await upstreams.stop()

    outcomes = asyncio.run(measure())

    def count(*, is_right: bool, outcome: Outcome | None = None) -> int:
        return sum(
            right == is_right and said != Outcome.UNREADABLE and outcome in (None, said)
            for right, said in outcomes
        )

    return Judgement(
        wrong=count(is_right=False),
        wrong_rejected=count(is_right=False, outcome=Outcome.REJECTED),
        right=count(is_right=True),
        right_rejected=count(is_right=True, outcome=Outcome.REJECTED),
        unreadable=sum(said == Outcome.UNREADABLE for _, said in outcomes),
        tokens=tokens,
    )
