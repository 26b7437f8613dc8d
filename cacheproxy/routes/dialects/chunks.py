"""Streams of chunks that end with `[DONE]`: what OpenAI's chat and legacy completions share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from cacheproxy.routes.dialects.completion import Completion
from cacheproxy.routes.dialects.sse import data_of, object_of

DONE = b"data: [DONE]\n\n"


class ChunkAssembler(ABC):
    """Puts the chunks of one streamed completion together.

    Attributes:
        is_done: whether the last event, `[DONE]`, has come.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._is_plain = True
        self._answer: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that is malformed; return how many were taken."""
        for taken, event in enumerate(events):
            if not self._take(data_of(event)):
                return taken
        return len(events)

    def completion(self) -> Completion | None:
        """Return the answer as one completion; None unless it is complete and may be kept."""
        if not (self.is_done and self._is_plain):
            return None
        answer = self._whole()
        return self._keepable(answer, msgspec.json.encode(answer))

    def _take(self, data: bytes) -> bool:
        if not data:
            return True
        if data.strip() == b"[DONE]":
            self.is_done = True
            return True
        chunk = object_of(data)
        if chunk is None:
            self._is_plain = False
            return False
        if self.is_done or "error" in chunk:
            self._is_plain = False
        choices = chunk.pop("choices", None)
        self._answer |= {name: value for name, value in chunk.items() if value is not None}
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                self._is_plain = False
                break
            self._is_plain &= choice.get("logprobs") is None
            self._add(choice)
            self._choice |= {name: value for name, value in choice.items() if value is not None}
        return True

    @abstractmethod
    def _add(self, choice: dict[str, Any]) -> None:
        """Add the next part of the only choice, and take it out of `choice`."""

    @abstractmethod
    def _whole(self) -> dict[str, Any]:
        """Return the answer object."""

    @staticmethod
    @abstractmethod
    def _keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
        """Return an answer and its JSON as what may be kept, or None."""
