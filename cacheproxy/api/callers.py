"""Identifies callers: the API key determines the tenant, and a header the namespace within it.

This happens before any lookup. No request can reach another tenant's entries: a namespace's id is a
hash over tenant and name together, and only the key determines the tenant.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from cacheproxy.api.access.key_ring import Grant, KeyRing
from cacheproxy.api.operation import Parameter
from cacheproxy.errors import ApiError, BadRequest, Forbidden, Unauthorized
from cacheproxy.fairness.meters import Meter, Meters
from cacheproxy.fairness.owner import NOBODY, work_for
from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, Namespace, owner_of
from cacheproxy.routes.exchange import Control
from cacheproxy.validation import convert

NamespaceName = Annotated[str, Meta(min_length=1, max_length=256)]

_REMEMBERED = 256
"""Namespaces whose callers are remembered for each key: making one costs 3 us."""

NAMESPACE = Parameter(
    "X-Cacheproxy-Namespace",
    NamespaceName,
    "The namespace within the caller's tenant, in UTF-8; `default` if it is absent. Namespaces "
    "share no entries.",
    example="docs",
)

API_KEY = (
    "An API key of the server's `api_keys`, which determines the tenant. A server without "
    "`api_keys` requires none."
)


def named_in(tenant: str, name: str, said_in: str) -> Namespace:
    """Return the namespace of a name within a tenant; `said_in` is where the client gave it.

    Raises:
        BadRequest: the name is empty or too long.
    """
    return Namespace(tenant, convert(name, NamespaceName, said_in))


class Caller:
    """Who makes a request, and what it may do.

    Attributes:
        namespace: the request's.
        owner: its tenant's `keys.tenant_id`.
        grant: what its key allows.
        is_free: whether it may use the cache as it likes.
        meter: counts what its tenant and namespace take, or None if nothing limits that.
    """

    __slots__ = ("grant", "is_free", "meter", "namespace", "owner")

    def __init__(self, namespace: Namespace, grant: Grant, meter: Meter | None = None) -> None:
        self.namespace = namespace
        self.owner = owner_of(namespace.id)
        self.grant = grant
        self.is_free = grant.scopes >= _USE
        self.meter = meter

    def restrict(self, control: Control) -> Control:
        """Return what a request may ask of the cache.

        Without `read` it gets no cached answer. Without `write` nothing of it is kept, neither as
        an entry nor as evidence, so it gets no hit that evidence would have to watch.

        Raises:
            Forbidden: the key allows neither.
        """
        scopes = self.grant.scopes
        if scopes.isdisjoint(_USE):
            raise _forbidden("read or write")
        if "write" not in scopes:
            return replace(control, read_only=True, semantic=False)
        return control if "read" in scopes else replace(control, no_cache=True)

    def need(self, scope: str) -> None:
        """Check that the key has a scope; raises `Forbidden`."""
        if scope not in self.grant.scopes:
            raise _forbidden(scope)


_USE = frozenset(("read", "write"))


def _forbidden(scope: str) -> Forbidden:
    return Forbidden(f"the API key does not have the scope {scope}", code="missing_scope")


class Callers:
    """Recognises callers by their API keys; without keys there is one tenant."""

    def __init__(
        self,
        keys: KeyRing,
        meters: Meters | None = None,
        *,
        seen: Callable[[str], object] = lambda owner: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        `meters` hold the limits of tenants. `seen` is told the tenant of each request, where there
        are several.
        """
        self.keys = keys
        self._meters = meters or Meters({})
        self._seen = seen
        self._monotonic = monotonic
        # What everyone may do where no keys are configured.
        self._anybody = Grant(DEFAULT_TENANT, "", _USE | {"purge"})

    def forget(self) -> None:
        """Forget the callers that are remembered, since what limits them has changed."""
        self.keys.forget_remembered()
        self._anybody.remembered.clear()

    def identify(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return the caller; from now on the current task works for its tenant.

        Raises:
            Unauthorized: keys are needed, and the request has no valid one.
            BadRequest: the namespace's name is invalid.
            Overloaded: its tenant has made too many requests.
        """
        caller = self._recognise(headers)
        if self._tenants_share:
            work_for(caller.owner)
        if caller.meter is not None:
            caller.meter.request(self._monotonic())
        return caller

    def unlimited(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Return the caller if nothing limits what it may do; no task works for its tenant."""
        try:
            caller = self._recognise(headers)
        except ApiError:
            return None
        return caller if caller.is_free and caller.meter is None else None

    def _recognise(self, headers: Mapping[bytes, bytes]) -> Caller:
        raw = headers.get(b"x-cacheproxy-namespace")
        grant = self._grant(headers) if self.keys.is_needed else self._anybody
        caller: Caller = grant.remembered.get(raw) or self._make(grant, raw)
        if self._tenants_share:
            self._seen(caller.owner)
        return caller

    @property
    def _tenants_share(self) -> bool:
        return self.keys.is_needed and self.keys.has_several_tenants

    def owner_for(self, caller: Caller) -> str:
        """Return for whom a caller's requests work; `NOBODY` if tenants do not share."""
        return caller.owner if self._tenants_share else NOBODY

    def owner_of(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return for whom a request works; `NOBODY` if tenants do not share or it has no key."""
        if not self._tenants_share:
            return NOBODY
        try:
            return self._recognise(dict(headers)).owner
        except ApiError:
            return NOBODY

    def account_of(self, caller: Caller, client: tuple[str, int] | None) -> str:
        """Return whose memory a request takes: its tenant's, or its address's without API keys."""
        return caller.owner if self.keys.is_needed or client is None else client[0]

    def _make(self, grant: Grant, raw: bytes | None) -> Caller:
        name = DEFAULT_NAMESPACE
        if raw is not None:
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                raise BadRequest("X-Cacheproxy-Namespace must be UTF-8") from None
        namespace = named_in(grant.tenant, name, "X-Cacheproxy-Namespace")
        caller = Caller(namespace, grant, self._meters.of(namespace.id))
        if len(grant.remembered) >= _REMEMBERED:
            grant.remembered.clear()
        grant.remembered[raw] = caller
        return caller

    def _grant(self, headers: Mapping[bytes, bytes]) -> Grant:
        api_key = bearer_of(headers)
        if not api_key:
            raise Unauthorized(
                "an API key is required: 'Authorization: Bearer KEY', or 'X-Api-Key'"
            )
        grant = self.keys.find(api_key.strip().decode("latin-1"))
        if grant is None:
            raise Unauthorized("the API key is not known", code="invalid_api_key")
        return grant


def bearer_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key of OpenAI's clients (Authorization) or of Anthropic's (X-Api-Key)."""
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and bearer.strip():
        return bearer
    return headers.get(b"x-api-key", b"")
