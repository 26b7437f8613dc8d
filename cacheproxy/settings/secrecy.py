"""The sections about secrecy: records encrypted at rest, connections encrypted in transit."""

import base64
import binascii
from pathlib import Path

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from cacheproxy.settings.section import Section

KEY_BYTES = 32


class EncryptionSettings(Section):
    """Encryption of what the store keeps: off unless there is a key."""

    keys: SecretStr | None = Field(
        None,
        min_length=1,
        description="keys of 32 random bytes in base64, separated by commas: records are encrypted "
        "by the first, and read by all",
    )

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            decoded(keys)
        return keys


def decoded(keys: SecretStr) -> list[bytes]:
    """Return the keys, 32 bytes each; raises ValueError, which tells nothing of them."""
    try:
        found = [base64.b64decode(one, validate=True) for one in _parts(keys)]
    except (binascii.Error, ValueError):
        raise ValueError("a key is not base64") from None
    if any(len(key) != KEY_BYTES for key in found):
        raise ValueError(f"a key is not {KEY_BYTES} bytes of base64: openssl rand -base64 32")
    if len(set(found)) < len(found):
        raise ValueError("a key is given twice")
    return found


def _parts(keys: SecretStr) -> list[str]:
    return [one.strip() for one in keys.get_secret_value().split(",")]


class TlsSettings(Section):
    """TLS of the public and the admin listener: off unless there is a certificate."""

    certificate: FilePath | None = Field(
        None, description="PEM file with the certificate and its chain; read again when it changes"
    )
    key: FilePath | None = Field(
        None, description="PEM file with its private key, unencrypted; read again when it changes"
    )
    client_ca: FilePath | None = Field(
        None,
        description="PEM file with the authorities whose client certificates are demanded of "
        "callers; not set: none is demanded",
    )

    @property
    def is_on(self) -> bool:
        """Whether the listeners speak TLS."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _whole(self) -> "TlsSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        return self


class ClientTls(Section):
    """How an upstream is known, and how this server is known to it."""

    ca: Path | None = Field(
        None, description="PEM file with the authorities that vouch for it; else the system's"
    )
    certificate: Path | None = Field(
        None, description="PEM file with this server's client certificate (mutual TLS)"
    )
    key: Path | None = Field(None, description="PEM file with its private key, unencrypted")

    @model_validator(mode="after")
    def _whole(self) -> "ClientTls":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self
