"""When a request is sent again: pure decisions, without a clock and without I/O.

The pauses are "full jitter" (Brooker, "Exponential Backoff and Jitter", AWS, 2015): uniform below a
bound that doubles, so that clients that failed together do not come back together. A `Retry-After`
is obeyed, with a little added for the same reason.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

_FIRST_S = 0.5
_LONGEST_S = 30.0
_MOST_RETRY_AFTER_S = 3_600.0
_MOST_DOUBLINGS = 16


class Verdict(Enum):
    """What an HTTP status says about the request."""

    GOOD = "good"
    LATER = "later"
    """The same request may succeed later."""
    SPLIT = "split"
    """Something in the request is at fault: parts of it may succeed."""
    FATAL = "fatal"
    """No request of ours will succeed: the address, the key or the model is wrong."""


def verdict(status: int, code: str | None, attempts: int) -> Verdict:
    """Return what to do after an answer.

    `code` is OpenAI's `error.code`, `attempts` how often the request has been sent. A server error
    that comes back five times is a fault of the request: one text must not stop all others.
    """
    if status == 200:
        return Verdict.GOOD
    if status in (408, 409, 425, 429) or status in (502, 503, 504):
        return Verdict.LATER
    if status in (400, 413, 422) or code == "inference_failed":
        return Verdict.SPLIT
    if status >= 500:
        return Verdict.SPLIT if attempts >= 5 else Verdict.LATER
    return Verdict.FATAL


def pause_s(attempt: int, retry_after_s: float | None, chance: Callable[[], float]) -> float:
    """Return how long to wait before the next attempt, seconds.

    `attempt` counts from 0; `chance` gives numbers in [0, 1).
    """
    if retry_after_s is not None:
        return retry_after_s + chance() * min(1.0, retry_after_s)
    return chance() * min(_LONGEST_S, _FIRST_S * 2.0 ** min(attempt, _MOST_DOUBLINGS))


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Return what a `Retry-After` header says (RFC 9110, 10.2.3), seconds; None if nothing."""
    if header is None:
        return None
    given = header.strip()
    if given.isascii() and given.isdigit():
        return min(float(given), _MOST_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(given)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    wait_s = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, wait_s), _MOST_RETRY_AFTER_S)
