"""The API keys that are valid now, by their hashes, and what each of them grants.

Only hashes are known here. A key is looked up by its hash: what the time of a lookup could reveal
is a part of some key's hash, for which nobody can make a key.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cacheproxy.settings.tenants import ApiKey

_PREFIX = "sha256:"
_ID_DIGITS = 8

EVERYTHING = frozenset(("read", "write", "purge", "admin"))


def hash_key(api_key: str) -> str:
    """Return the form in which an API key is configured.

    A plain SHA-256 is enough: keys are long and random, so a dictionary attack is not possible.
    """
    return _PREFIX + hashlib.sha256(api_key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Grant:
    """What one key grants.

    Attributes:
        tenant: whose key it is.
        key_id: its name in the log of admin actions.
        scopes: what it allows: read, write, purge, admin.
        expires_at: Unix time from which it is not valid, seconds.
        remembered: what its users keep for it; it goes with the key.
    """

    tenant: str
    key_id: str
    scopes: frozenset[str] = EVERYTHING
    expires_at: float = math.inf
    remembered: dict[bytes | None, Any] = field(default_factory=dict, compare=False)


Keys = Mapping[str, Sequence[str | ApiKey]]
"""The keys of each tenant; a plain hash has the default scopes."""


class KeyRing:
    """The valid keys; replaced as a whole when the settings or the file with them have changed.

    Attributes:
        is_needed: whether requests need a key.
    """

    def __init__(
        self, keys: Keys, *, is_needed: bool | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """Know the keys; by default one is needed if there are any. `now` is Unix time, seconds."""
        self.is_needed = bool(keys) if is_needed is None else is_needed
        self._fixed = keys
        self._now = now
        self._grants: dict[str, Grant] = {}
        self._tenants: frozenset[str] = frozenset()
        self.replace({})

    def replace(self, more: Keys, *, fixed: Keys | None = None) -> None:
        """Know these keys from now on beside those of the settings, `fixed`, and no others."""
        if fixed is not None:
            self._fixed = fixed
        grants: dict[str, Grant] = {}
        for keys in (more, self._fixed):
            for tenant, of_tenant in keys.items():
                for key in of_tenant:
                    each = ApiKey(hash=key) if isinstance(key, str) else key
                    known = self._grants.get(each.hash)
                    grant = _grant(tenant, each)
                    grants[each.hash] = known if known == grant and known is not None else grant
        self._grants = grants
        self._tenants = frozenset(grant.tenant for grant in grants.values())

    def forget_remembered(self) -> None:
        """Forget what its users keep for each key."""
        for grant in self._grants.values():
            grant.remembered.clear()

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._grants)

    @property
    def has_several_tenants(self) -> bool:
        """Whether tenants have to share."""
        return len(self._tenants) > 1

    @property
    def has_admins(self) -> bool:
        """Whether any key has the scope `admin`."""
        return any("admin" in grant.scopes for grant in self._grants.values())

    def find(self, api_key: str) -> Grant | None:
        """Return what a key grants; None if it is not known or not valid any more."""
        grant = self._grants.get(hash_key(api_key))
        if grant is None or grant.expires_at <= self._now():
            return None
        return grant


def _grant(tenant: str, key: ApiKey) -> Grant:
    return Grant(
        tenant,
        key.id or key.hash.removeprefix(_PREFIX)[:_ID_DIGITS],
        frozenset(key.scopes),
        math.inf if key.expires_at is None else key.expires_at.timestamp(),
    )
