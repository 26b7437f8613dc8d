"""Keeps evidence in the store: servers share it, and a restarted server continues from it.

Every few seconds each server adds its new evidence to the stored evidence, one namespace after the
other; a state that another server has changed meanwhile is read again. Evidence that cannot be
shared yet is retried. A killed server loses the evidence of those seconds, which makes the
remaining evidence older but never looser.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
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
_LIFE_S = 30 * 86_400.0
_LAST_S = 2.0


def evidence_name(fingerprint: str, kind: str, namespace_id: str) -> str:
    """Return the name under which a namespace's evidence of a kind is kept in a store."""
    return f"evidence:{fingerprint}:{kind}:{namespace_id}"


class Shared(Protocol):
    """The evidence of one namespace, as processes share it.

    Attributes:
        was_shared: whether the evidence of other and earlier processes has been read.
        unconfirmed: the last offer, packed, if it is unknown whether its write was applied.
    """

    unconfirmed: bytes | None

    @property
    def was_shared(self) -> bool: ...

    def unpack(self, packed: bytes) -> Any:
        """Return the evidence that another process packed; None if it is none of this kind."""

    def offer(self, shared: Any) -> Any:
        """Return `shared` with the new evidence added, as an object that can `pack` itself.

        The caller then calls `adopt` if it was written, `take_back` if it was not, or sets
        `unconfirmed` if the outcome is unknown.
        """

    def adopt(self, shared: Any) -> None:
        """Continue from the evidence that is shared now."""

    def take_back(self) -> None:
        """Keep the new evidence that was offered for the next offer."""


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
        self._task: asyncio.Task[None] | None = None

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
            old = earned.unpack(kept) if kept else None
            if earned.unconfirmed is not None:
                if old is not None and kept == earned.unconfirmed:
                    earned.adopt(old)
                    continue
                earned.take_back()
            offered = earned.offer(old)
            packed = offered.pack()
            try:
                is_kept = await self._store.swap_state(name, kept, packed, self._now() + _LIFE_S)
            except BaseException:
                # The store may have applied the write although its reply was lost.
                earned.unconfirmed = packed
                raise
            if is_kept:
                earned.adopt(offered)
                return
            earned.take_back()

    async def _run(self) -> None:
        while True:
            for _ in range(_NEW_ONES):
                await asyncio.sleep(_INTERVAL_S / _NEW_ONES)
                await self.share(new_ones_only=True)
            await self.share()
