"""What single tenants, and namespaces of theirs, may take where an operator has said so.

Limits are of what comes in a minute and of what is there at the same time.

Rates are token buckets that hold a tenth of a minute's worth: a request takes one from the first,
tokens are taken from the second once their number is known, which may leave it in debt. Refusals
are held back the longer the more of them come in a row: a client that floods then has all its
connections waiting, and costs next to nothing. Pure: the time is an argument, monotonic, in
seconds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from cacheproxy.errors import Overloaded
from cacheproxy.keys import owner_of

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
    """The limits of a tenant or a namespace; None: no limit."""

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
    """One tenant's account in one process; belongs to one event loop.

    Attributes:
        limits: what it allows.
    """

    whose = "tenant"

    def __init__(self, limits: Limits, refused: Callable[[], object] = lambda: None) -> None:
        """Start with full buckets; `refused` is called for each request that is refused."""
        self.limits = limits
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
                self._check(self._tokens, now_s, 1.0, "tokens")
            if self._requests is not None:
                self._check(self._requests, now_s, 1.0, "requests")
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
                self._check(self._tokens, now_s, tokens, "tokens")
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
                f"this {self.whose} has {self._in_flight} requests in flight, its limit",
                code=LIMIT_CODE,
                retry_after_s=_ONE_MORE_S,
            )
        self._in_flight += 1

    def leave(self) -> None:
        """Take note that a request has ended."""
        self._in_flight -= 1

    def _check(self, bucket: Bucket, now_s: float, size: float, what: str) -> None:
        wait_s = bucket.wait_s(now_s, size)
        if wait_s > 0:
            raise Overloaded(
                f"this {self.whose} has used all the {what} that it may use in a minute",
                code=LIMIT_CODE,
                retry_after_s=math.ceil(wait_s),
            )


class NamespaceMeter(Meter):
    """The account of a namespace, or of several together; its tenant's counts the same."""

    whose = "namespace"

    def __init__(
        self, limits: Limits, tenant: Meter, refused: Callable[[], object] = lambda: None
    ) -> None:
        """Start with full buckets; what the tenant's meter refuses costs nothing here."""
        super().__init__(limits, refused)
        self._tenant = tenant

    def is_for(self, limits: Limits, tenant: Meter) -> bool:
        """Return whether it allows this, within the tenant's account."""
        return self.limits == limits and self._tenant is tenant

    def request(self, now_s: float) -> None:
        """Take note of a request; raises `Overloaded`."""
        super().request(now_s)
        try:
            self._tenant.request(now_s)
        except Overloaded:
            if self._requests is not None:
                self._requests.take(-1.0)
            raise

    def infer(self, now_s: float, tokens: int) -> None:
        """Take the tokens that a request is about to have inferred; raises `Overloaded`."""
        super().infer(now_s, tokens)
        try:
            self._tenant.infer(now_s, tokens)
        except Overloaded:
            super().used(-tokens)
            raise

    def used(self, tokens: int) -> None:
        """Take tokens that an upstream has used."""
        super().used(tokens)
        self._tenant.used(tokens)

    def enter(self) -> None:
        """Take note that a request begins; raises `Overloaded`."""
        super().enter()
        try:
            self._tenant.enter()
        except Overloaded:
            super().leave()
            raise

    def leave(self) -> None:
        """Take note that a request has ended."""
        super().leave()
        self._tenant.leave()


@dataclass(frozen=True, slots=True)
class NamespaceLimits:
    """The limits of a tenant's namespaces.

    Attributes:
        named: by the namespace's id.
        others: of all others together, however many names there are; None: no limit.
    """

    named: Mapping[str, Limits] = field(default_factory=dict)
    others: Limits | None = None


class Meters:
    """The meters of the tenants and namespaces that have limits; as many as are configured."""

    def __init__(
        self,
        tenants: Mapping[str, Limits],
        refused: Callable[[str], object] = lambda whose: None,
        *,
        namespaces: Mapping[str, NamespaceLimits] | None = None,
    ) -> None:
        """Make a meter for each tenant, and for namespaces, with limits.

        Args:
            tenants: their limits by `keys.tenant_id`.
            refused: counts a request that is refused, as one of a `tenant` or a `namespace`.
            namespaces: the limits of tenants' namespaces, by `keys.tenant_id`.
        """
        self._count, self._count_namespace = (
            partial(refused, "tenant"),
            partial(refused, "namespace"),
        )
        self._meters: dict[str, Meter] = {}
        self._unlimited: dict[str, Meter] = {}
        self._named: dict[str, NamespaceMeter] = {}
        self._others: dict[str, NamespaceMeter] = {}
        self.replace(tenants, namespaces or {})

    def replace(
        self, tenants: Mapping[str, Limits], namespaces: Mapping[str, NamespaceLimits]
    ) -> None:
        """Limit by these from now on; an account whose limits have changed begins anew.

        Whoever keeps a meter has to ask for it again.
        """
        meters, named, others = self._meters, self._named, self._others
        self._meters, self._named, self._others = {}, {}, {}
        for owner, each in tenants.items():
            if each != Limits():
                known = meters.get(owner)
                is_same = known is not None and known.limits == each
                self._meters[owner] = known if known and is_same else Meter(each, self._count)
        for owner, limits in namespaces.items():
            # One that limits nothing, kept so that its namespaces' accounts can be kept.
            tenant = self._meters.get(owner)
            tenant = tenant or self._unlimited.setdefault(owner, Meter(Limits()))
            for namespace_id, each in limits.named.items():
                self._named[namespace_id] = self._of_namespace(
                    named.get(namespace_id), each, tenant
                )
            if limits.others is not None:
                self._others[owner] = self._of_namespace(others.get(owner), limits.others, tenant)
        self._unlimited = {
            owner: one for owner, one in self._unlimited.items() if owner in namespaces
        }

    def _of_namespace(
        self, known: NamespaceMeter | None, limits: Limits, tenant: Meter
    ) -> NamespaceMeter:
        if known is not None and known.is_for(limits, tenant):
            return known
        return NamespaceMeter(limits, tenant, self._count_namespace)

    def of(self, namespace_id: str) -> Meter | None:
        """Return the meter of a namespace, or its tenant's; None if nothing limits either."""
        owner = owner_of(namespace_id)
        if not self._named and not self._others:
            return self._meters.get(owner)
        return self._named.get(namespace_id) or self._others.get(owner) or self._meters.get(owner)
