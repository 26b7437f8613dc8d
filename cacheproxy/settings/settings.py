"""The settings of `cacheproxy serve` as a whole, and what follows from several of them.

`sections` has the parts of it, `sources` says where the values come from.
"""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, get_args

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from cacheproxy.settings.device import Device
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.settings.secrecy import EncryptionSettings, TlsSettings
from cacheproxy.settings.section import Live, Section
from cacheproxy.settings.sections import (
    AdminSettings,
    BatchSettings,
    CacheSettings,
    CanarySettings,
    ChatSettings,
    EmbeddingSettings,
    LogSettings,
    MetricsSettings,
    PriceSettings,
    RecordSettings,
    SemanticSettings,
    StaleSettings,
    TtlS,
    UpstreamSettings,
    WarmSettings,
)
from cacheproxy.settings.tenants import ApiKeys, Name, TenantSettings

TABLES = (
    *("api_keys", "model_aliases", "namespace_ttl_s", "namespace_stale_s"),
    *("namespace_cache_tools", "upstreams", "prices", "canary", "tenants"),
)
"""Settings whose keys are the user's own words."""

_SQLITE = "sqlite:///"
_MEMORY = "memory://"
_REDIS = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
_CLUSTER = ("redis+cluster://", "rediss+cluster://")
_STORES = (
    "sqlite:///PATH, memory://, redis://HOST:PORT, rediss://HOST:PORT, unix://PATH, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT"
)

_GPU_BATCH = {"threads": 2, "max_tokens": 16_384, "shared_tokens": 16_384}
"""One group runs on the GPU while the next is copied to it; a CPU would take seconds for a group
that fills a GPU."""

_MOST_WORKERS = 256


def _names(given: object) -> object:
    """Return names that stand in one text, with commas between them, as a list."""
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


Models = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1)], ...], NoDecode, BeforeValidator(_names)
]

UpstreamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Settings(BaseModel):
    """All settings of `cacheproxy serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65_535, description="port to listen on; 0 picks a free one")
    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("cacheproxy")),
        description="folder of the models and of the embedded store",
    )
    store: str | None = Field(
        None,
        description=f"{_STORES}; default: a file under the home folder",
    )
    model: Models = Field(
        ("all-MiniLM-L6-v2",),
        min_length=1,
        description="embedding models to serve, the default one first; in the file a list, in the "
        "variable names with commas between them, the flag may be given several times",
    )
    device: Device = Field("cpu", description="cpu (INT8) or cuda (float16 on an NVIDIA GPU)")
    allow_anonymous: bool = Field(
        False, description="allow listening beyond loopback without API keys"
    )
    workers: int = Field(
        1, ge=1, le=_MOST_WORKERS, description="number of serving processes; they share one store"
    )
    drain_s: float = Field(
        1,
        ge=0,
        le=300,
        description="time between SIGTERM and closing the listening socket, seconds",
    )

    cache: CacheSettings = CacheSettings()
    semantic: SemanticSettings = SemanticSettings()
    batch: BatchSettings = BatchSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    limits: LimitSettings = LimitSettings()
    admin: AdminSettings = AdminSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    tls: TlsSettings = TlsSettings()
    chat: ChatSettings = ChatSettings()
    upstream: Live[str | None] = Field(
        None,
        pattern=r"^https?://[^\s?#@]+$",
        description="an OpenAI-compatible server for chat completions; as [upstreams.default]",
    )
    upstream_passthrough: Literal["auto", "on", "off"] = Field(
        "auto",
        description="pass all other paths under /v1 to an upstream, uncached; auto: with several "
        "tenants only calls that store nothing there",
    )
    upstreams: Live[dict[UpstreamName, UpstreamSettings]] = Field(
        default_factory=dict,
        description="upstream servers by name, in the order in which they are asked",
    )
    prices: Live[dict[str, PriceSettings]] = Field(
        default_factory=dict, description="price of a million tokens by chat model"
    )
    canary: Live[dict[str, CanarySettings]] = Field(
        default_factory=dict,
        description="another model for a share of the callers, by the name of the model",
    )
    namespace_stale_s: Live[dict[Name, dict[Name, StaleSettings]]] = Field(
        default_factory=dict,
        description="stale_while_revalidate and stale_if_error by tenant and namespace",
    )
    namespace_cache_tools: Live[dict[Name, dict[Name, Literal["on", "off"]]]] = Field(
        default_factory=dict, description="chat.cache_tools by tenant and namespace"
    )
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    record: RecordSettings = RecordSettings()
    warm: WarmSettings = WarmSettings()
    api_keys: Live[ApiKeys] = Field(
        default_factory=dict, description="hashes of API keys by tenant"
    )
    api_keys_file: Path | None = Field(
        None,
        description="file of further API keys, in the form of [api_keys]; a change is read within "
        "seconds",
    )
    tenants: Live[dict[Name, TenantSettings]] = Field(
        default_factory=dict, description="what each tenant may take"
    )
    model_aliases: dict[str, str] = Field(
        default_factory=dict, description="other names for served models, name to model"
    )
    namespace_ttl_s: Live[dict[Name, dict[Name, TtlS]]] = Field(
        default_factory=dict,
        description="time to live of an entry by tenant and namespace, seconds",
    )

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str | None) -> str | None:
        schemes = (_SQLITE, *_REDIS, *_CLUSTER)
        if store not in (None, _MEMORY) and not (store or "").startswith(schemes):
            raise ValueError(f"must be {_STORES}")
        return store

    @property
    def needs_key(self) -> bool:
        """Whether requests need an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def all_upstreams(self) -> dict[str, UpstreamSettings]:
        """The upstreams in the order in which they are asked, `upstream` before the others."""
        first = {"default": UpstreamSettings(base_url=self.upstream)} if self.upstream else {}
        return {**first, **self.upstreams}

    def aliases_of(self, *names: str) -> tuple[str, ...]:
        """Return the aliases that are given to a model that has these names."""
        return tuple(alias for alias, name in self.model_aliases.items() if name in names)

    @property
    def batching(self) -> BatchSettings:
        """The batch section with defaults that suit the device and the number of workers."""
        defaults = _GPU_BATCH
        if self.device == "cpu":
            defaults = {"threads": max(1, len(os.sched_getaffinity(0)) // self.workers)}
        given = self.batch.model_fields_set
        return self.batch.model_copy(
            update={name: value for name, value in defaults.items() if name not in given}
        )

    @property
    def redis_url(self) -> str | None:
        """Where the store is, if it is in Redis; may hold a password."""
        return self.store if self.store and self.store.startswith((*_REDIS, *_CLUSTER)) else None

    @property
    def is_admin_tls(self) -> bool:
        """Whether the admin listener speaks TLS: not on loopback, where commands reach it."""
        return self.tls.is_on and not is_loopback(self.admin.host)

    @property
    def is_cluster(self) -> bool:
        """Whether the store is a Redis Cluster."""
        return (self.store or "").startswith(_CLUSTER)

    @property
    def store_path(self) -> Path | None:
        """The embedded store's file, if that is the store; None keeps everything in memory."""
        if self.store is None:
            return self.home / "cache.sqlite"
        return None if self.is_in_memory else Path(self.store.removeprefix(_SQLITE))

    @property
    def is_in_memory(self) -> bool:
        """Whether no other process can reach the store."""
        return self.store == _MEMORY

    @property
    def store_kind(self) -> str:
        """What the store is, in a word."""
        return "memory" if self.is_in_memory else "redis" if self.redis_url else "sqlite"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_secret(field: FieldInfo) -> bool:
    """Return whether a setting's value must not be shown, nor given where others can see it."""
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def setting_fields() -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield the path and the field of every setting but those that are tables of their own."""
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner, inner_field in section.model_fields.items():
                yield (name, inner), inner_field
        elif name not in TABLES:
            yield (name,), field
