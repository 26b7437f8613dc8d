"""One request of an items route on its way, and each of its inputs: plain data."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cacheproxy.inference.engine import Given
from cacheproxy.inference.input import Input
from cacheproxy.inference.queue import Reservation
from cacheproxy.keys import KeyScope
from cacheproxy.records import Record
from cacheproxy.routes.exchange import Control, ItemsRequest, Served
from cacheproxy.routes.repeated import Repeated
from cacheproxy.tiers.semantic import Lookup

R = TypeVar("R", bound=Record)


_NOT_TOKENISED = Given("", ())
_NOT_LOOKED_UP: Lookup[Any] = Lookup()


@dataclass(slots=True)
class Item(Generic[R]):
    """One input.

    Attributes:
        input: as the client gave it.
        raw_key: the hot tier's key of the raw input [32 bytes], or None.
        ids: token ids as the local model reads them; empty where there are none.
        given: the input as an engine takes it, once it is tokenised.
        key: of its entry [32 bytes], once it is tokenised.
        lookup: what the semantic tier found.
        looking: the task that sets `lookup`, for which no request waits; None: it is set before.
        served: its result, once there is one.
    """

    input: Input
    raw_key: bytes | None = None
    ids: Sequence[int] = ()
    given: Given = _NOT_TOKENISED
    key: bytes = b""
    lookup: Lookup[R] = _NOT_LOOKED_UP
    looking: asyncio.Task[None] | None = None
    served: Served[R] | None = None


@dataclass(slots=True)
class ItemsState(Generic[R]):
    """What all inputs of one request share.

    Attributes:
        request: as it came.
        control: what it asks of the cache.
        namespace_id: the caller's.
        scope: makes the keys of the caller's namespace.
        repeated: a lookup by key that was made before the request was parsed.
        reservation: the request's place in the queue for inference, if it has one.
        stages_s: the seconds that each stage took.
        over: set once all inputs are served, or the request has failed or left.
    """

    request: ItemsRequest
    scope: KeyScope
    repeated: Repeated[R] | None = None
    reservation: Reservation | None = None
    stages_s: dict[str, float] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    control: Control = field(init=False)
    namespace_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Keep at hand what is looked at again and again."""
        self.control = self.request.control
        self.namespace_id = self.request.namespace.id


def unserved(items: Iterable[Item[R]]) -> list[Item[R]]:
    """Return the items that have no result yet."""
    return [item for item in items if item.served is None]
