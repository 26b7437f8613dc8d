"""The sections of the settings, with their defaults and bounds.

Each section goes to the one part that it configures. `settings` puts them together.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT
from cacheproxy.settings.secrecy import ClientTls
from cacheproxy.settings.section import Live, Section

LogFormat = Literal["human", "json"]

RequestLog = Literal["off", "sampled", "all"]
"""Which requests get a line in the log."""

MOST_TTL_S = 10 * 365 * 86_400.0
"""The longest life of an entry, whether a setting or a request asks for it: ten years, seconds."""

TtlS = Annotated[float, Field(ge=1, le=MOST_TTL_S)]
StaleS = Annotated[float, Field(ge=0, le=MOST_TTL_S)]


class CacheSettings(Section):
    """What the cache keeps, for how long, and how long a lookup may take."""

    ttl_s: Live[TtlS] = Field(7 * 86_400, description="time to live of an entry, seconds")
    ttl_jitter: Live[float] = Field(
        0.1,
        ge=0,
        lt=1,
        description="random part of ttl_s, up to this share, by which an entry expires early",
    )
    hot_bytes: int = Field(
        64 * 2**20, ge=0, description="memory of the hot tier, bytes; 0 turns it off"
    )
    store_bytes: int = Field(2 * 2**30, ge=2**20, description="size of the embedded store, bytes")
    deadline_ms: float = Field(
        25, gt=0, description="deadline of a lookup in the store, milliseconds"
    )
    writeback_entries: int = Field(
        16_384, ge=1, description="length of the write-back queue, entries"
    )


class SemanticSettings(Section):
    """The semantic tier: what it promises, and how it earns the right to serve."""

    mode: Live[Literal["auto", "on", "off"]] = Field(
        "auto",
        description="auto: learn, serve what the evidence allows, and step aside where lookups "
        "cost more than they save; on: never step aside; off: exact tiers only",
    )
    max_error: Live[float] = Field(
        0.01,
        ge=0.001,
        le=0.2,
        description="promised upper limit on the share of wrong semantic hits",
    )
    confidence: Live[float] = Field(
        0.95, ge=0.9, le=0.999, description="confidence of that promise"
    )
    min_similarity: float = Field(
        0.95,
        gt=0,
        le=1,
        description="least cosine between the true and the served vector of a right hit",
    )
    threshold: Live[float | None] = Field(
        None,
        gt=0,
        le=1,
        description="serve hits from this probe score upwards; your own guess, nothing is promised",
    )
    probe: str = Field(
        "shallow",
        description="encoder that finds neighbours: shallow (a sixth of the cost of inference), "
        "static (no forward pass, finds fewer) or the name of a smaller model",
    )
    min_tokens: int = Field(
        6, ge=1, description="texts of fewer tokens, special ones included, skip the semantic tier"
    )


class BatchSettings(Section):
    """Inference: threads, groups of texts, and the queue before them."""

    threads: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        description="groups that run at the same time; default: the worker's share of the cores",
    )
    window_ms: float = Field(
        5,
        ge=0,
        description="longest time that a text waits for others to share its group, milliseconds",
    )
    max_tokens: int = Field(256, ge=1, description="most tokens in one group")
    shared_tokens: int = Field(
        64, ge=1, description="most tokens in one group while several requests wait"
    )
    max_wait_ms: float = Field(
        2_000, gt=0, description="a request that would wait longer gets 429, milliseconds"
    )
    timeout_s: float = Field(60, gt=0, description="longest wait of an accepted text, seconds")


class EmbeddingSettings(Section):
    """How embedding requests are read."""

    token_ids: Literal["auto", "own", "cl100k_base", "o200k_base"] = Field(
        "auto",
        description="whose token ids clients send: the model's own, or a vocabulary of OpenAI's; "
        "auto tells them apart and refuses what may be either",
    )
    untrained_dimensions: Literal["warn", "refuse"] = Field(
        "warn",
        description="requests that cut vectors to dimensions that the model was not trained for",
    )


class ChatSettings(Section):
    """Chat completions: what is cached, and what the semantic tier promises."""

    ttl_s: Live[TtlS] = Field(86_400, description="time to live of a completion, seconds")
    hot_bytes: int = Field(
        64 * 2**20, ge=0, description="memory of the hot tier for completions, bytes"
    )
    max_temperature: Live[float] = Field(
        1,
        ge=0,
        le=2,
        description="requests with a higher temperature bypass the cache; none given counts as 1",
    )
    cache_tools: Live[Literal["on", "off"]] = Field(
        "off",
        description="on: chat requests with tools are cached too, at temperature 0 and for equal "
        "requests only",
    )
    max_answer_bytes: int = Field(
        2**20, ge=1_024, description="longer answers are passed on and not stored, bytes"
    )
    semantic: Live[Literal["on", "off"]] = Field(
        "on",
        description="on: learn from answers, serve what the evidence allows; off: exact tiers only",
    )
    max_error: Live[float] = Field(
        0.02,
        ge=0.001,
        le=0.2,
        description="promised upper limit on the share of wrong semantic hits",
    )
    confidence: Live[float] = Field(
        0.95, ge=0.9, le=0.999, description="confidence of that promise"
    )
    threshold: Live[float | None] = Field(
        None,
        gt=0,
        le=1,
        description="serve hits from this cosine upwards; your own guess, nothing is promised",
    )
    judge: Live[str] = Field(
        "auto",
        min_length=1,
        description="who judges whether a cached answer answers a question: auto (the model that "
        "was asked), none, or the name of a chat model",
    )
    pool_scores: Literal["on", "off"] = Field(
        "on",
        description="on: a namespace begins with the score that the model's namespaces have "
        "taught, at least three of them; off: each learns from nothing",
    )
    learning_share: Live[float] = Field(
        0.10,
        ge=0,
        le=1,
        description="most that judging may cost while the tier is closed, as a share of what the "
        "clients' requests cost",
    )
    open_share: Live[float] = Field(0.03, ge=0, le=1, description="the same once the tier is open")
    judge_requests_per_minute: Live[float] = Field(
        3_000, gt=0, description="most requests of the proxy's own in a minute"
    )
    stale_while_revalidate_s: Live[StaleS] = Field(
        0,
        description="seconds for which an expired completion is served while it is refreshed",
    )
    stale_if_error_s: Live[StaleS] = Field(
        0, description="seconds for which an expired completion is served if the upstream fails"
    )


class UpstreamSettings(Section):
    """An OpenAI-compatible server that answers what the cache cannot."""

    base_url: Live[str] = Field(
        pattern=r"^https?://[^\s?#@]+$", description="URL up to and including /v1"
    )
    api_key: Live[SecretStr | None] = Field(
        None, min_length=1, description="bearer token for it; $NAME reads an environment variable"
    )
    key_header: Live[Literal["auto", "authorization", "x-api-key"]] = Field(
        "auto", description="header that carries api_key; auto: x-api-key for the Messages API"
    )
    pass_authorization: Live[bool] = Field(
        False,
        description="send the caller's own Authorization header; each caller then has own entries",
    )
    models: Live[tuple[str, ...]] = Field(
        (), description="chat models that it serves; if no models of any kind are given: any"
    )
    embeddings: dict[str, Annotated[int, Field(ge=1, le=65_536)]] = Field(
        default_factory=dict,
        description="embedding models that it serves, each with its dimensions",
    )
    rerank: tuple[str, ...] = Field(
        (), description="rerankers that it serves; each scores every document by itself"
    )
    before_local: bool = Field(
        False, description="ask it for the local model's embeddings before the local engine"
    )
    connect_timeout_s: Live[float] = Field(
        5, gt=0, description="longest wait for a connection, seconds"
    )
    first_byte_timeout_s: Live[float] = Field(
        300, gt=0, description="longest wait for the head of an answer, seconds"
    )
    idle_timeout_s: Live[float] = Field(
        30, gt=0, description="longest pause in a streamed answer, seconds"
    )
    timeout_s: Live[float] = Field(
        600, gt=0, description="longest time for a whole answer, seconds"
    )
    connections: Live[int] = Field(256, ge=1, description="most connections to it at the same time")
    tls: Live[ClientTls] = Field(ClientTls(), description="files for TLS: ca, certificate, key")

    @field_validator("api_key")
    @classmethod
    def _from_environment(cls, api_key: SecretStr | None) -> SecretStr | None:
        name = api_key.get_secret_value() if api_key else ""
        if not name.startswith("$"):
            return api_key
        if not os.environ.get(name[1:]):
            raise ValueError(f"the variable {name[1:]} is not set")
        return SecretStr(os.environ[name[1:]])

    @model_validator(mode="after")
    def _one_authorization(self) -> "UpstreamSettings":
        if self.pass_authorization and self.api_key is not None:
            raise ValueError("either api_key or pass_authorization")
        if self.pass_authorization and (self.embeddings or self.rerank):
            raise ValueError(
                "embeddings and scores are the same for all callers: they take an api_key"
            )
        return self

    @property
    def has_any_chat_model(self) -> bool:
        """Whether it is asked for any chat model, as no models are given."""
        return not (self.models or self.embeddings or self.rerank)

    @property
    def has_chat(self) -> bool:
        """Whether it is asked for any chat model at all."""
        return bool(self.models) or self.has_any_chat_model


class PriceSettings(Section):
    """Price of a million tokens of a model, in one currency for all models."""

    prompt: Live[float] = Field(ge=0, description="price of a million prompt tokens")
    completion: Live[float] = Field(ge=0, description="price of a million completion tokens")


class StaleSettings(Section):
    """How long expired completions may still be served (RFC 5861)."""

    while_revalidate: Live[StaleS] = Field(0, description="while a fresh one is fetched, seconds")
    if_error: Live[StaleS] = Field(0, description="if the upstream fails, seconds")


class AdminSettings(Section):
    """The admin listener: off unless it has a port."""

    host: str = Field("127.0.0.1", description="address of the admin listener")
    port: int | None = Field(
        None, ge=0, le=65_535, description="port of the admin listener; not set: no admin listener"
    )
    token: Live[SecretStr | None] = Field(
        None, min_length=1, description="bearer token that admin requests must carry"
    )


class LogSettings(Section):
    """What goes to the log on standard error, and in which form."""

    level: Live[Literal["debug", "info", "warning", "error"]] = Field(
        "info", description="log level"
    )
    format: LogFormat = Field("human", description="human, or json: one object a line")
    requests: Live[RequestLog] = Field(
        "sampled",
        description="requests to log at level info: off, sampled (one a second for each route and "
        "status) or all",
    )


class MetricsSettings(Section):
    """What `/metrics` tells beside the figures of the whole server."""

    namespaces: Live[int] = Field(
        50,
        ge=0,
        le=1_000,
        description="namespaces with series of their own, the busiest by model; 0 turns these "
        "series off",
    )


class CanarySettings(Section):
    """Another model in the place of one, for a share of the callers."""

    model: Live[str] = Field(
        min_length=1, description="model that answers in its place; it has to be served, too"
    )
    percent: Live[float] = Field(
        0,
        ge=0,
        le=100,
        description="share of namespaces that get it, chosen by a hash; a request may choose for "
        "itself with X-Cacheproxy-Variant",
    )


class WarmSettings(Section):
    """What a server asks itself before it is ready: nothing unless there is a file."""

    recording: Path | None = Field(
        None,
        description="record.path of a server with record.texts; the texts that it was asked for "
        "most are embedded before this server is ready",
    )
    texts: Path | None = Field(
        None,
        description="file of texts, as `cacheproxy warm` reads it, in place of a recording",
    )
    tenant: str = Field(DEFAULT_TENANT, min_length=1, description="tenant that gets the entries")
    namespace: str = Field(
        DEFAULT_NAMESPACE, min_length=1, description="namespace that gets the entries"
    )
    role: Literal["query", "document"] | None = Field(
        None, description="what the texts are, for models with prefixes; not set: no prefix"
    )
    most: int = Field(10_000, ge=1, le=1_000_000, description="most texts that are asked for")
    deadline_s: float = Field(
        300, gt=0, description="longest warm-up, after which the server is ready anyway, seconds"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "WarmSettings":
        if self.recording is not None and self.texts is not None:
            raise ValueError("either recording or texts")
        return self


class RecordSettings(Section):
    """Recording of requests for later replay: off unless it has a path."""

    path: Path | None = Field(
        None, description="file that requests are recorded to; not set: no recording"
    )
    texts: bool = Field(False, description="record texts as well as their hashes")
    max_bytes: int = Field(
        256 * 2**20, ge=2**20, description="size at which the file is rotated to PATH.1, bytes"
    )
