"""What a tenant is known by, and what it may take: `[api_keys]` and `[tenants]`."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from cacheproxy.fairness.meters import Limits, NamespaceLimits
from cacheproxy.fairness.shelves import Terms
from cacheproxy.keys import Namespace, tenant_id
from cacheproxy.settings.section import Live, Section

Scope = Literal["read", "write", "purge", "admin"]

KeyHash = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""Of a tenant, or of a namespace in it."""


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, such as a Z at its end")
    return moment


class ApiKey(Section):
    """One API key, as its hash."""

    hash: Live[KeyHash] = Field(description="what `cacheproxy key` printed")
    id: Live[str | None] = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="its name in the log; default: the first 8 digits of the hash",
    )
    scopes: Live[tuple[Scope, ...]] = Field(
        ("read", "write", "purge"), description="what it allows"
    )
    expires_at: Live[Annotated[datetime, AfterValidator(_with_zone)] | None] = Field(
        None, description="when it stops being valid"
    )


ApiKeys = dict[Name, list[KeyHash | ApiKey]]
"""The keys of each tenant."""


class Rates(Section):
    """What may come in a minute, and be there at the same time."""

    requests_per_minute: Live[float | None] = Field(
        None, gt=0, description="most requests in a minute, for each process"
    )
    tokens_per_minute: Live[float | None] = Field(
        None,
        gt=0,
        description="most tokens in a minute that are inferred or that upstreams count, for each "
        "process",
    )
    in_flight: Live[int | None] = Field(
        None, ge=1, description="most requests at the same time, for each process"
    )

    def limits(self) -> Limits:
        """Return them as a meter takes them."""
        return Limits(self.requests_per_minute, self.tokens_per_minute, self.in_flight)


OTHERS = "*"
"""In place of a namespace's name: all that are not named, together."""


class TenantSettings(Rates):
    """What one tenant may take; whatever is not set is not limited."""

    share: float = Field(
        1,
        gt=0,
        le=1_000,
        description="its part, relative to the others', of what tenants compete for: inference, "
        "the hot tier, the embedded store",
    )
    hot_bytes: int | None = Field(
        None, ge=0, description="most memory in each of the hot tiers, bytes"
    )
    store_bytes: int | None = Field(
        None, ge=2**20, description="most bytes in the embedded store; its own oldest entries go"
    )
    store_entries: int | None = Field(
        None, ge=1, description="most entries in the embedded store; its own oldest go"
    )
    namespaces: int | None = Field(
        None, ge=1, description="most namespaces of each model with evidence in memory"
    )
    namespace_limits: Live[dict[Name, Rates]] = Field(
        {},
        max_length=1_000,
        description="the same rates of single namespaces, by name; `*` is all others together",
    )


_ANY = TenantSettings()


class Tenants:
    """The tenants' settings by `keys.tenant_id`, in the forms that the parts of a server need."""

    def __init__(self, tenants: Mapping[str, TenantSettings]) -> None:
        self._by_name = dict(tenants)
        self._by_id = {tenant_id(name): settings for name, settings in tenants.items()}

    def of(self, owner: str) -> TenantSettings:
        """Return a tenant's settings, or the defaults."""
        return self._by_id.get(owner, _ANY)

    def terms(self, owner: str) -> Terms:
        """Return a tenant's share, without a bound."""
        return Terms(self.of(owner).share)

    def hot_terms(self, owner: str) -> Terms:
        """Return its share of a hot tier, and its most bytes there."""
        settings = self.of(owner)
        most = settings.hot_bytes
        return Terms(settings.share, math.inf if most is None else most)

    def namespace_terms(self, owner: str) -> Terms:
        """Return the number of its namespaces that are kept in memory."""
        most = self.of(owner).namespaces
        return Terms(most=math.inf if most is None else most)

    def limits(self) -> dict[str, Limits]:
        """Return the tenants' limits by their ids."""
        return {owner: each.limits() for owner, each in self._by_id.items()}

    def namespace_limits(self) -> dict[str, NamespaceLimits]:
        """Return the limits of their namespaces by the tenants' ids, where there are any."""
        return {
            tenant_id(name): NamespaceLimits(
                {
                    Namespace(name, one).id: rates.limits()
                    for one, rates in each.namespace_limits.items()
                    if one != OTHERS
                },
                each.namespace_limits[OTHERS].limits() if OTHERS in each.namespace_limits else None,
            )
            for name, each in self._by_name.items()
            if each.namespace_limits
        }
