"""Embeds by a server with OpenAI's API: ours, or any other.

A request that fails for the server's reasons is sent again, until no request has succeeded for a
while. One that fails for its own reasons is halved until the faulty text is alone. While the server
fails again and again, a circuit breaker lets one request at a time find out whether it has
recovered.
"""

import asyncio
import binascii
import random
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import numpy as np

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import BadRequest, ConfigError
from cacheproxy.inference.inputs import Role
from cacheproxy.ingest.retrying import Verdict, pause_s, retry_after_s, verdict
from cacheproxy.ingest.rows import IngestStopped, Vector
from cacheproxy.ingest.stream import Measured, Refused
from cacheproxy.records import is_usable
from cacheproxy.tiers.timed_breaker import TimedBreaker

_CHARACTERS_A_TOKEN = 4
"""Of English prose, for tokenizers of every kind; only the size of requests depends on it."""

_ANSWER_S = 120.0
_CONNECT_S = 5.0
_LONGEST_WAIT_S = 5.0
"""How long a request sleeps at most before it looks again whether the breaker lets it through."""

_MOST_UNREADABLE = 5

T = TypeVar("T")

_BREAKER = BreakerPolicy(first_pause_s=0.5, longest_pause_s=15.0)


class _Model(msgspec.Struct):
    id: str
    kind: str | None = None
    fingerprint: str = ""


class _Models(msgspec.Struct):
    data: list[_Model]


class _Item(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]


class _Said(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Failure(msgspec.Struct):
    error: _Said


_MODELS = msgspec.json.Decoder(_Models)
_MODEL = msgspec.json.Decoder(_Model)
_ANSWER = msgspec.json.Decoder(_Answer)
_FAILURE = msgspec.json.Decoder(_Failure)


class RemoteEmbedder:
    """One model of a server."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        role: Role | None = None,
        give_up_s: float = 300.0,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the server, with or without `/v1`.
            model: its name there; default: the first one that the server lists.
            api_key: sent as a bearer token.
            headers: sent with every request for vectors.
            role: what the texts are, for models that read queries and documents differently.
            give_up_s: how long no request may succeed before the work is stopped.

        Raises:
            ConfigError: the URL cannot be used.
        """
        self.model = model or ""
        self.fingerprint = ""
        self._base = base_url(url)
        self._headers = dict(headers or {})
        self._fields = {} if role is None else {"input_type": role}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._give_up_s = give_up_s
        self._breaker = TimedBreaker(_BREAKER)
        self._session: aiohttp.ClientSession | None = None
        self._answered_at = time.monotonic()
        self._not_before = 0.0
        self._dimensions: int | None = None

    async def __aenter__(self) -> "RemoteEmbedder":
        """Connect; find the model if none was named, and its fingerprint.

        Raises:
            ConfigError, BadRequest: the server refuses, or has no model.
            IngestStopped: it cannot be reached.
        """
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._answered_at = time.monotonic()
        try:
            await self._find_model()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def measure(self, texts: Sequence[str]) -> list[Measured]:
        """Estimate the tokens of each text: its tokenizer is the server's."""
        return [Measured(text, len(text) // _CHARACTERS_A_TOKEN + 2) for text in texts]

    async def embed(self, texts: Sequence[Measured]) -> list[Vector | Refused]:
        """Return a vector for each text, or the server's reason for refusing it.

        Raises:
            BadRequest: the server refuses all that we send.
            IngestStopped: it has not answered for too long.
        """
        if not texts:
            return []
        try:
            return await self._ask([text.given for text in texts])
        except _SplitError as error:
            if len(texts) == 1:
                return [Refused(str(error))]
            middle = len(texts) // 2
            return await self.embed(texts[:middle]) + await self.embed(texts[middle:])

    async def _find_model(self) -> None:
        if self.model:
            status, body, _ = await self._send("GET", f"models/{quote(self.model)}", None)
            if status == 200:
                self.fingerprint = _decoded(_MODEL, body).fingerprint
            return  # a server may not list what it serves
        status, body, _ = await self._send("GET", "models", None)
        if status != 200:
            raise BadRequest(f"{self._base}/models: {_failure(status, body)[0]}; use --model")
        listed = _decoded(_MODELS, body).data
        chosen = next((one for one in listed if one.kind in (None, "embeddings")), None)
        if chosen is None:
            raise ConfigError(f"{self._base}: no model is listed; use --model")
        self.model, self.fingerprint = chosen.id, chosen.fingerprint

    async def _ask(self, texts: Sequence[str]) -> list[Vector | Refused]:
        """Return the vectors of one request, sent until it is answered."""
        body = msgspec.json.encode(
            {"model": self.model, "input": texts, "encoding_format": "base64", **self._fields}
        )

        attempts = 0
        while True:
            attempts += 1
            status, data, after_s = await self._send("POST", "embeddings", body)
            reason, code = ("", None) if status == 200 else _failure(status, data)
            found = verdict(status, code, attempts)
            if found is Verdict.SPLIT:
                raise _SplitError(reason)
            if found is Verdict.FATAL:
                raise BadRequest(f"{self._base}: {reason}", status=status)
            if found is Verdict.GOOD:
                try:
                    return list(self._vectors(data, len(texts)))
                except ValueError as error:
                    reason = f"its answer cannot be read: {error}"
                if attempts >= _MOST_UNREADABLE:
                    raise IngestStopped(f"{self._base}: {reason}")
            self._check_patience(reason)
            await asyncio.sleep(pause_s(attempts - 1, after_s, random.random))

    async def _send(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes, float | None]:
        """Return a status, a body and `Retry-After`; sent again while there is no answer at all."""
        attempt = 0
        while True:
            await self._wait_for_turn()
            began_at = time.monotonic()
            try:
                status, data, after_s = await self._once(method, path, body)
            except asyncio.CancelledError:
                self._breaker.abandoned(began_at=began_at)
                raise
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._breaker.failed(began_at=began_at)
                self._check_patience(str(error) or type(error).__name__)
                await asyncio.sleep(pause_s(attempt, None, random.random))
                attempt += 1
                continue
            if status in (502, 504) or (status == 503 and after_s is None):
                self._breaker.failed(began_at=began_at)
            else:
                self._breaker.succeeded()
            if status < 400:
                self._answered_at = time.monotonic()
            if after_s is not None:
                self._not_before = max(self._not_before, time.monotonic() + after_s)
            return status, data, after_s

    async def _once(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes, float | None]:
        if self._session is None:
            raise RuntimeError("not connected")
        headers = {"Content-Type": "application/json", **self._headers}
        url = f"{self._base}/{path}"
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            data = await answer.read()
            return answer.status, data, retry_after_s(answer.headers.get("Retry-After"))

    async def _wait_for_turn(self) -> None:
        """Wait until the server may be asked: it may have said when, or the breaker is open."""
        while (wait_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
        while not self._breaker.may_call():
            self._check_patience("it fails again and again")
            await asyncio.sleep(min(max(self._breaker.pause_s, 0.05), _LONGEST_WAIT_S))

    def _check_patience(self, reason: str) -> None:
        silent_s = time.monotonic() - self._answered_at
        if silent_s > self._give_up_s and time.monotonic() > self._not_before:
            raise IngestStopped(f"{self._base}: no answer for {silent_s:.0f} s: {reason}")

    def _vectors(self, data: bytes, count: int) -> list[Vector]:
        """Return the vectors in order; raises `ValueError` if they are not what was asked for."""
        try:
            items = sorted(_ANSWER.decode(data).data, key=lambda item: item.index)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None
        if [item.index for item in items] != list(range(count)):
            raise ValueError("it does not have one vector for each text")
        vectors = [_vector(item.embedding) for item in items]
        dimensions = self._dimensions or len(vectors[0])
        if any(len(vector) != dimensions or not is_usable(vector) for vector in vectors):
            raise ValueError("a vector is not finite, or has another length")
        self._dimensions = dimensions
        return vectors


class _SplitError(Exception):
    """A text of the request is at fault; the message is the server's."""


def base_url(url: str) -> str:
    """Return the URL that OpenAI's clients take: `/v1` is added to one without a path.

    Raises:
        ConfigError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"--url: {url} is not the URL of a server")
    if "@" in parts.netloc:
        raise ConfigError("--url: a password in a URL is visible to others; use --api-key-env")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _vector(given: str | list[float]) -> Vector:
    if isinstance(given, list):
        return np.array(given, np.float32)
    try:
        return np.frombuffer(binascii.a2b_base64(given), "<f4").astype(np.float32)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _failure(status: int, body: bytes) -> tuple[str, str | None]:
    """Return a refusal's message and code."""
    try:
        said = _FAILURE.decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _Said()
    code = None if said.code is None else str(said.code)
    return said.message or f"the server answered {status}", code


def _decoded(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"the server's list of models cannot be read: {error}") from None
