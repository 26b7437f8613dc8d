"""One kept-open connection that posts JSON, and accepts no answer but 2xx."""

import http.client
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import NotAnswered

_TIMEOUT_S = 60.0
_QUOTED = 200


class Answer(NamedTuple):
    """Seconds until the first byte of the body arrived, the body, and its `Cache-Status`."""

    first_s: float
    body: bytes
    cache_status: str


class Caller:
    """Posts to one URL, one request at a time."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)

    def post(self, body: str) -> Answer:
        """Return the answer to a JSON body.

        Raises:
            NotAnswered: the answer's status is not 2xx, or there is no answer.
        """
        started = time.perf_counter()
        try:
            self._connection.request("POST", self._path, body.encode(), self._headers)
            response = self._connection.getresponse()
            first = response.read1(1)
            first_s = time.perf_counter() - started
            whole = first + response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotAnswered(f"{self._url}: {error or type(error).__name__}") from None
        if response.status // 100 != 2:
            quoted = whole[:_QUOTED].decode(errors="replace")
            raise NotAnswered(f"{self._url} answered {response.status}: {quoted}")
        return Answer(first_s, whole, response.getheader("Cache-Status", ""))
