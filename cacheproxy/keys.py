"""What makes two requests the same: namespace ids and the content-hash keys of the exact tier.

A key is SHA-256 over a typed, length-prefixed encoding of (schema version, namespace, route, model
fingerprint, input), so that no two different requests share an encoding, whatever bytes they hold:
("ab", "c") is not ("a", "bc"), and 1 is not "1". Nothing is trimmed or Unicode-normalised here.
For a local model the input is its token ids, after prefix and truncation (DESIGN section 1).
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

KEY_BYTES = 32

DEFAULT_TENANT = "default"
"""Whose requests are, where no API keys are configured."""

DEFAULT_NAMESPACE = "default"

SCHEMA_VERSION = 1
"""Part of every key: raised whenever a stored record or a key changes its meaning."""

NAMESPACE_ID_CHARACTERS = 32

_TENANT_CHARACTERS = 12
"""48 bits: operators choose the names of tenants, not clients. Ids of two tenants whose first
characters were equal would still differ in the rest, a hash over tenant and name."""

_SCOPES = 4_096
"""Scopes whose hashed prefix is remembered, some 2 MB."""

SHORT_ID_CHARACTERS = 12

_LENGTH = struct.Struct("<Q")


def encode_fields(*fields: str | bytes | int) -> bytes:
    """Return an injective encoding of the fields: a type tag, the length, then the bytes of each.

    Raises:
        UnicodeEncodeError: a str holds a lone surrogate, which has no UTF-8 form.
    """
    parts: list[bytes] = []
    for field in fields:
        if isinstance(field, str):
            tag, data = b"s", field.encode()
        elif isinstance(field, bytes):
            tag, data = b"b", field
        else:
            tag, data = b"i", str(int(field)).encode()
        parts += (tag, _LENGTH.pack(len(data)), data)
    return b"".join(parts)


@dataclass(frozen=True)
class Namespace:
    """One tenant's named part of the cache; entries of different namespaces never meet."""

    tenant: str
    name: str

    @cached_property
    def id(self) -> str:
        """32 hex characters; the only form of a namespace that stores and metrics see.

        The first 12 are the tenant's (`tenant_id`), so that what a namespace takes can be put on
        its tenant's account wherever the id is known.
        """
        encoded = encode_fields("namespace", self.tenant, self.name)
        own = hashlib.sha256(encoded).hexdigest()
        return tenant_id(self.tenant) + own[: NAMESPACE_ID_CHARACTERS - _TENANT_CHARACTERS]


@lru_cache(4_096)
def tenant_id(tenant: str) -> str:
    """Return the 12 hex characters with which the ids of a tenant's namespaces begin."""
    encoded = encode_fields("tenant", tenant)
    return hashlib.sha256(encoded).hexdigest()[:_TENANT_CHARACTERS]


def owner_of(namespace_id: str) -> str:
    """Return whose a namespace is: the `tenant_id` in its id."""
    return namespace_id[:_TENANT_CHARACTERS]


class KeyScope:
    """The keys of one (namespace, route, model fingerprint); what they share is hashed once."""

    __slots__ = ("_fields", "_ids", "_text")

    def __init__(self, namespace_id: str, route: str, fingerprint: str) -> None:
        prefix = encode_fields(SCHEMA_VERSION, namespace_id, route, fingerprint)
        self._ids = hashlib.sha256(prefix + encode_fields("ids"))
        self._text = hashlib.sha256(prefix + encode_fields("text"))
        self._fields = hashlib.sha256(prefix + encode_fields("fields"))

    def of_ids(self, ids: Sequence[int]) -> bytes:
        """Return the key [32 bytes] of token ids, each in 0..2**32-1, specials included."""
        # Nothing follows the last field, so it needs no length of its own to stay injective.
        digest = self._ids.copy()
        digest.update(struct.pack(f"<{len(ids)}I", *ids))
        return digest.digest()

    def of_raw(self, given: str | tuple[str | int, ...]) -> bytes:
        """Return the key [32 bytes] of an input as the client gave it: a text, or several fields.

        Raises:
            UnicodeEncodeError: a text holds a lone surrogate.
        """
        if isinstance(given, str):
            return self.of_text(given)
        digest = self._fields.copy()
        digest.update(encode_fields(*given))
        return digest.digest()

    def of_text(self, text: str) -> bytes:
        """Return the key [32 bytes] of a raw text, byte for byte as the client sent it.

        Raises:
            UnicodeEncodeError: the text holds a lone surrogate.
        """
        digest = self._text.copy()
        digest.update(text.encode())
        return digest.digest()


@lru_cache(_SCOPES)
def key_scope(namespace_id: str, route: str, fingerprint: str) -> KeyScope:
    """Return the keys of a (namespace, route, fingerprint); the ones used last are remembered."""
    return KeyScope(namespace_id, route, fingerprint)


class Hashed(str):
    """What is left of a name that was hashed: `hex_id` returns it as it is.

    A store has only the hashes of tags, contexts and fingerprints. Entries that are read from one
    store and written into another have these in place of the names.
    """

    __slots__ = ()


def hex_id(name: str) -> str:
    """Return 32 hex characters that stand for any string where special characters could do harm."""
    if isinstance(name, Hashed):
        return str(name)
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def short_id(namespace_id: str) -> str:
    """Return the name of a namespace in metrics and logs: 12 characters of its `hex_id`."""
    return hex_id(namespace_id)[:SHORT_ID_CHARACTERS]
