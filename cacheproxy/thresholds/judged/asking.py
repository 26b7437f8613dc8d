"""How a judge's replies become an outcome: a rejection is asked again, in other words.

Only three rejections reject. A judge that rejects a tenth of right answers when asked once rejects
a thousandth of them, if it errs independently, and still sees 61 % of wrong ones if it saw 85 %. It
is the false rejects that cost labels: with two questions this judge needs 1.7 times as many. What
is measured on controls is the procedure as a whole, all questions together; that they err
independently is assumed nowhere.
"""

from collections.abc import Sequence
from typing import Literal

from cacheproxy.thresholds.judged.evidence import Outcome

REJECTIONS = 3
"""In a row, of one pair, until it counts as rejected."""

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
    return Outcome.REJECTED if len(replies) >= REJECTIONS else None
