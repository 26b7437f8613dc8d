"""What single tenants may take in a minute and at the same time, where an operator has said so.

Rates are token buckets that hold a tenth of a minute's worth: a request takes one from the first,
tokens are taken from the second once their number is known, which may leave it in debt. Refusals
are held back the longer the more of them come in a row: a client that floods then has all its
connections waiting, and costs next to nothing. Pure: the time is an argument, monotonic, in
seconds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cacheproxy.errors import Overloaded

_BURST_S = 6.0
"""What a bucket holds, in seconds of its rate: clients come in bursts, and ask for minutes."""

LIMIT_CODE = "rate_limit_exceeded"
"""OpenAI's code for it."""

_DELAY_S, _LONGEST_DELAY_S = 0.01, 1.0
"""How much longer each further refusal is held back, and the longest time."""

_ONE_MORE_S = 1.0
"""When to come again if too many requests are in flight: how long these take is not known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one tenant; None: no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    in_flight: int | None = None


class Bucket:
    """A rate that may be exceeded for moments."""

    __slots__ = ("_as_of_s", "_left", "_most", "_per_s")

    def __init__(self, per_minute: float) -> None:
        self._per_s = per_minute / 60
        self._most = self._left = max(1.0, self._per_s * _BURST_S)
        self._as_of_s = -math.inf

    def wait_s(self, now_s: float, size: float) -> float:
        """Return the seconds until it holds so much, or all that it can hold; 0 if it does."""
        if now_s > self._as_of_s:
            grown = (now_s - self._as_of_s) * self._per_s
            self._left = min(self._most, self._left + grown)
            self._as_of_s = now_s
        return max(0.0, min(size, self._most) - self._left) / self._per_s

    def take(self, size: float) -> None:
        """Take so much, even if it leaves a debt."""
        self._left -= size


class Meter:
    """One tenant's account in one process; belongs to one event loop."""

    def __init__(self, limits: Limits, refused: Callable[[], object] = lambda: None) -> None:
        """Start with full buckets; `refused` is called for each request that is refused."""
        self._count_refused = refused
        self._most_in_flight = limits.in_flight
        rates = limits.requests_per_minute, limits.tokens_per_minute
        self._requests, self._tokens = (None if rate is None else Bucket(rate) for rate in rates)
        self._in_flight = 0
        self._refused = 0

    def request(self, now_s: float) -> None:
        """Take note of a request.

        Raises:
            Overloaded: it is one too many, or earlier ones have used too many tokens.
        """
        try:
            if self._tokens is not None:
                _check(self._tokens, now_s, 1.0, "tokens")
            if self._requests is not None:
                _check(self._requests, now_s, 1.0, "requests")
                self._requests.take(1.0)
        except Overloaded as error:
            self._count_refused()
            error.delay_s = min(_LONGEST_DELAY_S, self._refused * _DELAY_S)
            self._refused += 1
            raise
        self._refused = 0

    def infer(self, now_s: float, tokens: int) -> None:
        """Take the tokens that a request is about to have inferred.

        Raises:
            Overloaded: there are not so many left.
        """
        if self._tokens is not None:
            try:
                _check(self._tokens, now_s, tokens, "tokens")
            except Overloaded:
                self._count_refused()
                raise
            self._tokens.take(tokens)

    def used(self, tokens: int) -> None:
        """Take tokens that an upstream has used."""
        if self._tokens is not None:
            self._tokens.take(tokens)

    def enter(self) -> None:
        """Take note that a request begins; raises `Overloaded`."""
        if self._most_in_flight is not None and self._in_flight >= self._most_in_flight:
            self._count_refused()
            raise Overloaded(
                f"this tenant has {self._in_flight} requests in flight, its limit",
                code=LIMIT_CODE,
                retry_after_s=_ONE_MORE_S,
            )
        self._in_flight += 1

    def leave(self) -> None:
        """Take note that a request has ended."""
        self._in_flight -= 1


def _check(bucket: Bucket, now_s: float, size: float, what: str) -> None:
    wait_s = bucket.wait_s(now_s, size)
    if wait_s > 0:
        raise Overloaded(
            f"this tenant has used all the {what} that it may use in a minute",
            code=LIMIT_CODE,
            retry_after_s=math.ceil(wait_s),
        )


class Meters:
    """The meters of the tenants that have limits, by `keys.tenant_id`."""

    def __init__(
        self, limits: Mapping[str, Limits], refused: Callable[[], object] = lambda: None
    ) -> None:
        """Make a meter for each tenant with limits; `refused` counts what they refuse."""
        self._meters = {
            owner: Meter(each, refused) for owner, each in limits.items() if each != Limits()
        }

    def of(self, owner: str) -> Meter | None:
        """Return a tenant's meter; None if nothing limits it."""
        return self._meters.get(owner)
