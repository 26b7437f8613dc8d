"""Simulated judges: with known rates, and useless ones against which the chat tier must be safe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from cacheproxy.errors import ConfigError
from cacheproxy.thresholds.judged.asking import Reply

Manner = Literal["honest", "accepts", "rejects", "random", "prose", "unreachable", "obeys", "turns"]
"""How a judge behaves: by its rates; accepting or rejecting everything; at random; replying in
sentences; not replying; obeying instructions in the judged text; and accepting everything from
half-way on."""

MANNERS: tuple[Manner, ...] = get_args(Manner)


def parse_judge(text: str) -> "SimulatedJudge":
    """Parse a judge such as `0.95,0.02`, or with a manner, such as `0.95,0.02,turns`.

    Raises:
        ConfigError: the description is invalid.
    """
    try:
        sensitivity, false_rejects, *rest = text.split(",")
        rates = float(sensitivity), float(false_rejects)
    except ValueError:
        raise ConfigError("--judge needs two rates, as in 0.95,0.02") from None
    manner = next((known for known in MANNERS if [known] == rest), None)
    if not all(0 <= rate <= 1 for rate in rates) or (rest and manner is None):
        raise ConfigError(f"--judge takes rates from 0 to 1 and one of {', '.join(MANNERS)}")
    return SimulatedJudge(*rates, manner=manner or "honest", injected=0.1 * (manner == "obeys"))


@dataclass(frozen=True)
class SimulatedJudge:
    """A judge.

    Attributes:
        sensitivity: of wrong answers, the share that one question rejects.
        false_rejects: of right answers, the same.
        manner: how it behaves.
        referred: the two rates of a second question that has a reference; None: as without one.
        sameness: the share of rejections that it would repeat whatever it is asked; of others, the
            second question errs independently of the first.
        injected: the share of texts that tell a judge to accept them.
    """

    sensitivity: float = 0.95
    false_rejects: float = 0.02
    manner: Manner = "honest"
    referred: tuple[float, float] | None = None
    sameness: float = 0.0
    injected: float = 0.0

    def reply(
        self,
        *,
        is_wrong: bool,
        is_injected: bool,
        is_late: bool,
        has_reference: bool = False,
        first: Reply | None,
        draw: Callable[[], float],
    ) -> Reply | None:
        """Return what it says of a pair; None if it cannot be reached.

        Args:
            is_wrong: whether the answer does not answer the question.
            is_injected: whether one of the two tells it to accept.
            is_late: whether it is past half-way.
            has_reference: whether it reads another answer to the question, too.
            first: what it said before of the same pair.
            draw: uniform in [0, 1).
        """
        if self.manner == "unreachable":
            return None
        if self.manner == "prose":
            return "unreadable"
        accepts = self.manner == "accepts" or (self.manner == "turns" and is_late)
        if accepts or (self.manner == "obeys" and is_injected):
            return "accept"
        if self.manner == "rejects":
            return "reject"
        if self.manner == "random":
            return "reject" if draw() < 0.5 else "accept"
        rates = self.sensitivity, self.false_rejects
        if has_reference and self.referred is not None:
            rates = self.referred
        elif first == "reject" and draw() < self.sameness:
            return "reject"
        rate = rates[0] if is_wrong else rates[1]
        return "reject" if draw() < rate else "accept"
