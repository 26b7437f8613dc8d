"""Keeps evidence in the store: servers share it, and a restarted server continues from it.

Every few seconds each server adds its new evidence to the stored evidence, one namespace after the
other; a state that another server has changed meanwhile is read again. Evidence that cannot be
shared yet is retried. A killed server loses the evidence of those seconds, which makes the
remaining evidence older but never looser.

A store may apply a write although its reply is lost, even after the server has asked again. So that
nothing is counted twice, the stored state names the latest offer of each server that it holds, and
an offer that may have been applied is repeated unchanged until the state holds it.
"""

import asyncio
import logging
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Store

_log = logging.getLogger(__name__)

_INTERVAL_S = 5.0
_NEW_ONES = 10
"""How many times more often namespaces that are new to this server are handled: after a restart
they are closed until then."""

_ATTEMPTS = 5
LIFE_S = 30 * 86_400.0
_LAST_S = 2.0

_HEAD, _OFFER = struct.Struct("<4sB"), struct.Struct("<8sI")
_MAGIC = b"CPSE"

_SERVERS = 64
"""Servers whose latest offers a state names. If one is pushed out within the seconds for which it
does not know the outcome of its write, its offer is dropped: it may be in the state."""


def evidence_name(fingerprint: str, kind: str, namespace_id: str) -> str:
    """Return the name under which a namespace's evidence of a kind is kept in a store."""
    return f"evidence:{fingerprint}:{kind}:{namespace_id}"


@dataclass(slots=True)
class SharedState:
    """What a store keeps under an evidence's name.

        magic 4 | offers u8 | each: server 8, number u32 | evidence

    Attributes:
        evidence: as its kind packs it.
        offers: the number of the latest offer in it of each server, the latest writer last.
    """

    evidence: bytes
    offers: dict[bytes, int] = field(default_factory=dict)

    @classmethod
    def unpack(cls, packed: bytes) -> "SharedState":
        """Return the state; bytes of another form are evidence without offers."""
        if len(packed) < _HEAD.size:
            return cls(packed)
        magic, offers = _HEAD.unpack_from(packed)
        start = _HEAD.size + offers * _OFFER.size
        if magic != _MAGIC or len(packed) < start:
            return cls(packed)
        return cls(packed[start:], dict(_OFFER.iter_unpack(packed[_HEAD.size : start])))

    def pack(self) -> bytes:
        """Return the state as bytes."""
        offers = b"".join(_OFFER.pack(*offer) for offer in self.offers.items())
        return _HEAD.pack(_MAGIC, len(self.offers)) + offers + self.evidence

    def may_hold(self, server: bytes, number: int) -> bool:
        """Return whether the server's offer is in it, as far as it can tell."""
        held = self.offers.get(server)
        return held == number if held is not None else len(self.offers) >= _SERVERS

    def with_offer(self, evidence: bytes, server: bytes, number: int) -> "SharedState":
        """Return the state that holds other evidence, with an offer of the server."""
        others = {one: latest for one, latest in self.offers.items() if one != server}
        latest = dict(list(others.items())[1 - _SERVERS :])
        return SharedState(evidence, {**latest, server: number})


class Shared(Protocol):
    """The evidence of one namespace, as processes share it.

    Attributes:
        was_shared: whether the evidence of other and earlier processes has been read.
        offer_number: of the offer that is not known to be stored; None if there is none.
    """

    offer_number: int | None

    @property
    def was_shared(self) -> bool: ...

    def unpack(self, packed: bytes) -> Any:
        """Return the evidence that another process packed; None if it is none of this kind."""

    def offer(self, shared: Any) -> Any:
        """Return `shared` with the offer added, as an object that can `pack` itself.

        The offer is the new evidence or, while `offer_number` is set, the same as before.
        """

    def adopt(self, shared: Any) -> None:
        """Continue from the evidence that is shared now; it holds the offer, which is over."""


class EvidenceSource(Protocol):
    """All namespaces of one model.

    Attributes:
        kind: of evidence; different kinds are never mixed.
    """

    @property
    def kind(self) -> str: ...

    def with_news(self) -> Iterable[tuple[str, Shared]]:
        """Return the namespaces with evidence that is not shared yet."""


class EvidenceSharing:
    """Shares one model's evidence; used from one event loop."""

    def __init__(
        self,
        store: Store,
        source: EvidenceSource,
        *,
        fingerprint: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            store: where evidence is kept.
            source: the namespaces whose evidence is shared.
            fingerprint: of the model and its probe; evidence of different ones is never mixed.
            now: Unix time, seconds.
        """
        self._store = store
        self._source = source
        self._fingerprint = fingerprint
        self._now = now
        self._server = secrets.token_bytes(8)
        self._numbers = count(1)
        self._task: asyncio.Task[None] | None = None

    def shares(self, source: EvidenceSource) -> bool:
        """Return whether it shares this evidence."""
        return self._source is source

    def start(self) -> None:
        """Start sharing in the background of the running event loop."""
        self._task = asyncio.create_task(self._run(), name="evidence")

    async def stop(self) -> None:
        """Share what is left, within moments."""
        await stop_tasks(self._task)
        try:
            await asyncio.wait_for(self.share(), _LAST_S)
        except TimeoutError:
            _log.warning("the last evidence could not be shared in time")

    async def share(self, *, new_ones_only: bool = False) -> None:
        """Share the new evidence of every namespace; evidence that cannot be shared is retried."""
        for namespace_id, earned in self._source.with_news():
            if new_ones_only and earned.was_shared:
                continue
            name = evidence_name(self._fingerprint, self._source.kind, namespace_id)
            try:
                await self._share_one(name, earned)
            except StoreError as error:
                _log.debug("evidence could not be shared: %s", error)
                return

    async def _share_one(self, name: str, earned: Shared) -> None:
        for _ in range(_ATTEMPTS):
            kept = await self._store.read_state(name)
            state = SharedState.unpack(kept or b"")
            old = earned.unpack(state.evidence)
            number = earned.offer_number
            if number is not None and old is not None and state.may_hold(self._server, number):
                earned.adopt(old)
                continue
            offered = earned.offer(old)
            if number is None:
                number = earned.offer_number = next(self._numbers)
            packed = state.with_offer(offered.pack(), self._server, number).pack()
            if await self._store.swap_state(name, kept, packed, self._now() + LIFE_S):
                earned.adopt(offered)
                return

    async def _run(self) -> None:
        while True:
            for _ in range(_NEW_ONES):
                await asyncio.sleep(_INTERVAL_S / _NEW_ONES)
                await self.share(new_ones_only=True)
            await self.share()
