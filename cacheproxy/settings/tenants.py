"""What a tenant is known by, and what it may take: `[api_keys]` and `[tenants]`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from cacheproxy.settings.section import Section

SCOPES = ("read", "write", "purge", "admin")

KeyScopeName = Literal["read", "write", "purge", "admin"]

KeyHash = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""Of a tenant, or of a namespace in it."""


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, such as a Z at its end")
    return moment


class ApiKey(Section):
    """One API key, as its hash."""

    hash: KeyHash = Field(description="what `cacheproxy key` printed")
    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="its name in the log; default: the first 8 digits of the hash",
    )
    scopes: tuple[KeyScopeName, ...] = Field(
        ("read", "write", "purge"), description="what it allows"
    )
    expires_at: Annotated[datetime, AfterValidator(_with_zone)] | None = Field(
        None, description="when it stops being valid"
    )


ApiKeys = dict[Name, list[KeyHash | ApiKey]]
"""The keys of each tenant."""


class TenantSettings(Section):
    """What one tenant may take; whatever is not set is not limited."""

    share: float = Field(
        1,
        gt=0,
        le=1_000,
        description="its part, relative to the others', of what tenants compete for: inference, "
        "the hot tier, the embedded store",
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="most requests in a minute, for each process"
    )
    tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="most tokens in a minute that are inferred or that upstreams count, for each "
        "process",
    )
    in_flight: int | None = Field(
        None, ge=1, description="most requests at the same time, for each process"
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
