"""When the tokens of a streamed answer came: reads server-sent events as they arrive."""

import re

_CONTENT = re.compile(rb'content":\s*"(?!")')
"""A delta with text, `reasoning_content` included. In text itself the quotes would be escaped."""

_TOLD = re.compile(rb'"completion_tokens":\s*(\d+)')


class Pieces:
    """The pieces of one stream.

    Attributes:
        count: number of events with text.
        first: when the first of them came, of the caller's clock.
        last: when the last of them came.
        told: number of tokens that the server told, 0 if it told none.
    """

    __slots__ = ("_rest", "count", "first", "last", "told")

    def __init__(self) -> None:
        self._rest = b""
        self.count = 0
        self.first = 0.0
        self.last = 0.0
        self.told = 0

    def feed(self, body: bytes, now: float) -> None:
        """Take in a part of the body that came at `now`; an event may be cut anywhere."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            if _CONTENT.search(line):
                self.count += 1
                self.first = self.first or now
                self.last = now
            elif found := _TOLD.search(line):
                self.told = int(found.group(1))

    @property
    def tokens(self) -> int:
        """Number of tokens: as the server told, or else each piece is one."""
        return self.told or self.count
