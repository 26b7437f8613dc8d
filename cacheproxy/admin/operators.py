"""Who may use the admin listener, and for which tenant.

Operators of all tenants have the admin token, or an API key with the scope `admin`. A key with the
scope `purge` may purge the entries of its own tenant here, and nothing else. Where there is neither
a token nor a key with `admin`, clients on the same machine need none; requests that a page in a
browser may have made are refused then.
"""

import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from cacheproxy.api.access.key_ring import KeyRing
from cacheproxy.errors import Forbidden, Unauthorized

TOKEN, MACHINE = "token", "machine"
"""Names of operators without a key: those with the admin token, and those on this machine."""


class Operator(NamedTuple):
    """Who makes a request to the admin listener.

    Attributes:
        id: of the key, or `TOKEN` or `MACHINE`.
        tenant: whose entries may be purged, and nothing else be done; None: all may be done.
    """

    id: str
    tenant: str | None = None

    def check(self, *, purges: str | None = None) -> None:
        """Check that it may purge a tenant's entries or, without one, do anything else.

        Raises:
            Forbidden: it may not.
        """
        if self.tenant is not None and self.tenant != purges:
            raise Forbidden(
                "the API key may only purge its own tenant's entries here", code="missing_scope"
            )


class Operators:
    """Recognises operators.

    Attributes:
        token: the admin token, or None.
    """

    def __init__(self, token: str | None, keys: KeyRing) -> None:
        self.token = token
        self._keys = keys

    def identify(self, headers: Mapping[bytes, bytes]) -> Operator:
        """Return who makes a request.

        Raises:
            Unauthorized: a token or key is needed, and the request has none that counts here.
            Forbidden: none is needed, and a page in a browser may have made the request.
        """
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        given = given.strip() if scheme.lower() == b"bearer" else b""
        if self.token is not None and hmac.compare_digest(given, self.token.encode()):
            return Operator(TOKEN)
        grant = self._keys.find(given.decode("latin-1")) if given else None
        if grant is not None and "admin" in grant.scopes:
            return Operator(grant.key_id)
        if grant is not None and "purge" in grant.scopes:
            return Operator(grant.key_id, grant.tenant)
        if self.token is not None or self._keys.has_admins:
            raise Unauthorized("the admin token is required: 'Authorization: Bearer TOKEN'")
        if b"origin" in headers or not _is_loopback(headers.get(b"host", b"")):
            raise Forbidden("without an admin token, only clients on this machine are allowed")
        return Operator(MACHINE)


def _is_loopback(host: bytes) -> bool:
    name = host.decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
