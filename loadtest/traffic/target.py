"""Where requests go, and their bytes: whole HTTP/1.1 requests, ready to be sent.

Bodies are those of the official OpenAI client (base64 vectors unless asked otherwise).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from cacheproxy.errors import ConfigError

from .scenario import Replayed

PATHS: dict[Replayed, str] = {
    "embeddings": "/v1/embeddings",
    "chat": "/v1/chat/completions",
    "rerank": "/v1/rerank",
}


def endpoint(url: str, route: Replayed) -> str:
    """Return the URL of a route of the server at `url`, which may end in `/v1`."""
    return url.rstrip("/").removesuffix("/v1") + PATHS[route]


def user_message(text: str) -> list[dict[str, str]]:
    """Return the messages of a chat in which a user has said one thing."""
    return [{"role": "user", "content": text}]


@dataclass(frozen=True)
class Target:
    """A server that speaks OpenAI's API.

    Attributes:
        url: with or without `/v1` at the end.
        model: name that requests ask for.
        api_key: sent as a bearer token, or None.
        float_vectors: whether to ask for vectors as numbers, because some servers know no base64.
    """

    url: str
    model: str
    api_key: str | None = None
    float_vectors: bool = False

    @property
    def host(self) -> str:
        """Name or address to connect to."""
        host = urlsplit(self.url).hostname
        if host is None:
            raise ConfigError(f"{self.url} is not the URL of a server")
        return host

    @property
    def port(self) -> int:
        """Port to connect to."""
        return urlsplit(self.url).port or (443 if self.is_tls else 80)

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.url.startswith("https://")

    @property
    def root(self) -> str:
        """The URL without `/v1`."""
        return self.url.rstrip("/").removesuffix("/v1")

    def embeddings(self, texts: Sequence[str | list[int]], namespace: str | None = None) -> bytes:
        """Return a request for the embeddings of texts, or of lists of token ids."""
        form = "float" if self.float_vectors else "base64"
        given = texts[0] if len(texts) == 1 else texts
        body = {"input": given, "model": self.model, "encoding_format": form}
        return self._request("embeddings", body, namespace)

    def chat(
        self, messages: object, *, streamed: bool, usage: bool = False, namespace: str | None = None
    ) -> bytes:
        """Return a request for the answer to messages in the form of OpenAI's API.

        With `usage` a stream is asked for its number of tokens.
        """
        body: dict[str, object] = {"model": self.model, "messages": messages, "stream": streamed}
        if usage and streamed:
            body["stream_options"] = {"include_usage": True}
        return self._request("chat", body, namespace)

    def rerank(
        self, query: str, documents: Sequence[object], namespace: str | None = None
    ) -> bytes:
        """Return a request for the ranking of documents by the server's default reranker."""
        body = {"query": query, "documents": documents, "return_documents": False}
        return self._request("rerank", body, namespace)

    def _request(self, route: Replayed, body: object, namespace: str | None) -> bytes:
        data = msgspec.json.encode(body)
        head = [
            f"POST {urlsplit(endpoint(self.url, route)).path} HTTP/1.1",
            f"host: {urlsplit(self.url).netloc}",
            "content-type: application/json",
            f"content-length: {len(data)}",
        ]
        if self.api_key:
            head.append(f"authorization: Bearer {self.api_key}")
        if namespace:
            head.append(f"x-cacheproxy-namespace: {namespace}")
        return "\r\n".join([*head, "\r\n"]).encode() + data
