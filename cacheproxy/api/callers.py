"""Identifies callers: the API key determines the tenant, and a header the namespace within it.

This happens before any lookup. No request can reach another tenant's entries: a namespace's id is a
hash over tenant and name together, and only the key determines the tenant.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from cacheproxy.api.operation import Parameter
from cacheproxy.errors import BadRequest, Unauthorized
from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, Namespace
from cacheproxy.validation import convert

NamespaceName = Annotated[str, Meta(min_length=1, max_length=256)]

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


def hash_key(api_key: str) -> str:
    """Return the form in which an API key is configured.

    A plain SHA-256 is enough: keys are long and random, so a dictionary attack is not possible.
    """
    return "sha256:" + hashlib.sha256(api_key.encode()).hexdigest()


def named_in(tenant: str, name: str, said_in: str) -> Namespace:
    """Return the namespace of a name within a tenant; `said_in` is where the client gave it.

    Raises:
        BadRequest: the name is empty or too long.
    """
    return Namespace(tenant, convert(name, NamespaceName, said_in))


class Callers:
    """The known API keys, as hashes, and their tenants; without keys there is one tenant."""

    def __init__(self, api_keys: Mapping[str, list[str]]) -> None:
        self._tenants = {hashed: tenant for tenant, hashes in api_keys.items() for hashed in hashes}
        self._default = Namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE)

    def identify(self, headers: Mapping[bytes, bytes]) -> Namespace:
        """Return the caller's namespace.

        Raises:
            Unauthorized: keys are configured, and the request has none of them.
            BadRequest: the namespace's name is invalid.
        """
        tenant = self._tenant(headers) if self._tenants else DEFAULT_TENANT
        raw = headers.get(b"x-cacheproxy-namespace")
        if raw is None:
            if tenant == DEFAULT_TENANT:
                return self._default
            return Namespace(tenant, DEFAULT_NAMESPACE)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise BadRequest("X-Cacheproxy-Namespace must be UTF-8") from None
        return named_in(tenant, name, "X-Cacheproxy-Namespace")

    def owner_of(self, namespace: Namespace, client: tuple[str, int] | None) -> str:
        """Return whose memory a request takes: its tenant's, or its address's without API keys."""
        return namespace.tenant if self._tenants or client is None else client[0]

    def _tenant(self, headers: Mapping[bytes, bytes]) -> str:
        api_key = _api_key(headers)
        if not api_key:
            raise Unauthorized(
                "an API key is required: 'Authorization: Bearer KEY', or 'X-Api-Key'"
            )
        hashed = hash_key(api_key.strip().decode("latin-1"))
        found = None
        for known, tenant in self._tenants.items():
            # All keys are compared, each in constant time, so that timing reveals nothing.
            if hmac.compare_digest(known, hashed):
                found = tenant
        if found is None:
            raise Unauthorized("the API key is not known", code="invalid_api_key")
        return found


def _api_key(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key of OpenAI's clients (Authorization) or of Anthropic's (X-Api-Key)."""
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and bearer.strip():
        return bearer
    return headers.get(b"x-api-key", b"")
