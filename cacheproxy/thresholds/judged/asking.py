"""How a judge's replies become an outcome: a rejection is asked again, in other words.

Only two rejections reject. What is measured on controls is the procedure as a whole, both
questions together; that they err independently is assumed nowhere.
"""

from collections.abc import Sequence
from typing import Literal

from cacheproxy.thresholds.judged.evidence import Outcome

Reply = Literal["accept", "reject", "unreadable"]


def read_reply(text: object) -> Reply:
    """Return what a judge's answer says: one of two words, alone."""
    word = text.strip().strip("\"'`.*!").upper() if isinstance(text, str) else ""
    if word == "ACCEPT":
        return "accept"
    return "reject" if word == "REJECT" else "unreadable"


def outcome_of(replies: Sequence[Reply]) -> Outcome | None:
    """Return the outcome of the replies so far; None if the judge is to be asked once more."""
    if not replies:
        return None
    if replies[-1] != "reject":
        return Outcome.ACCEPTED if replies[-1] == "accept" else Outcome.UNREADABLE
    return Outcome.REJECTED if len(replies) > 1 else None
