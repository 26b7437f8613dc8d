"""Who calls: the API key gives the tenant, a header the namespace inside it.

This is settled before any lookup. Nothing that a client sends can leave its tenant: the id of a
namespace is a hash over tenant and name together, and the tenant comes from the key alone.
"""

import hashlib
import hmac
from collections.abc import Mapping

from cacheproxy.errors import BadRequest, Unauthorized
from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, Namespace

_LONGEST_NAME = 256


def hash_key(api_key: str) -> str:
    """Return the form in which an API key is configured.

    A plain SHA-256 is enough, as keys are random and long: there is no dictionary to try.
    """
    return "sha256:" + hashlib.sha256(api_key.encode()).hexdigest()


def named_in(tenant: str, name: str, said_in: str) -> Namespace:
    """Return the namespace of a name inside a tenant; `said_in` is where the client named it.

    Raises:
        BadRequest: the name is not usable.
    """
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise BadRequest(f"{said_in} takes 1 to {_LONGEST_NAME} characters")
    return Namespace(tenant, name)


class Callers:
    """The known API keys, as hashes, and whose they are; without any, everyone is one tenant."""

    def __init__(self, api_keys: Mapping[str, list[str]]) -> None:
        self._tenants = {hashed: tenant for tenant, hashes in api_keys.items() for hashed in hashes}
        self._default = Namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE)

    def identify(self, headers: Mapping[bytes, bytes]) -> Namespace:
        """Return the caller's namespace.

        Raises:
            Unauthorized: keys are configured, and the request has none of them.
            BadRequest: the namespace's name is not usable.
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

    def _tenant(self, headers: Mapping[bytes, bytes]) -> str:
        api_key = _api_key(headers)
        if not api_key:
            raise Unauthorized("an API key is needed: 'Authorization: Bearer KEY', or 'X-Api-Key'")
        hashed = hash_key(api_key.strip().decode("latin-1"))
        found = None
        for known, tenant in self._tenants.items():
            # Every key is compared, each in constant time, so that timing tells nothing.
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
