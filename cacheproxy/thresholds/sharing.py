"""Evidence in the store: servers share it, and a restart goes on from it.

Each server adds its news to what is kept, every few seconds, one namespace after the other; a state
that another server has changed meanwhile is read again. What cannot be shared waits. A server that
is killed loses the news of those seconds; its evidence is then older, and never looser.
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
"""Times more often namespaces are looked after that this server has not seen before: after a
restart they are closed until then."""

_ATTEMPTS = 5
_LIFE_S = 30 * 86_400.0
_LAST_S = 2.0


def evidence_name(fingerprint: str, kind: str, namespace_id: str) -> str:
    """Return the name under which a namespace's evidence of a kind is kept in a store."""
    return f"evidence:{fingerprint}:{kind}:{namespace_id}"


class Shared(Protocol):
    """The evidence of one namespace, as processes share it.

    Attributes:
        was_shared: whether the evidence of other processes, and of earlier ones, was seen.
        unconfirmed: what was offered last, packed, if its write may or may not have been applied.
    """

    unconfirmed: bytes | None

    @property
    def was_shared(self) -> bool: ...

    def unpack(self, packed: bytes) -> Any:
        """Return the evidence that another process packed; None if it is none of this kind."""

    def offer(self, shared: Any) -> Any:
        """Return what is to be shared from now on, which can `pack` itself: `shared` with the news.

        `adopt` follows once that is kept, `take_back` if it was not, and `unconfirmed` if nobody
        knows.
        """

    def adopt(self, shared: Any) -> None:
        """Go on from the evidence that is shared now."""

    def take_back(self) -> None:
        """Keep the news that was offered for the next time."""


class EvidenceSource(Protocol):
    """All namespaces of one model.

    Attributes:
        kind: of evidence; one kind never meets another.
    """

    @property
    def kind(self) -> str: ...

    def with_news(self) -> Iterable[tuple[str, Shared]]:
        """Return the namespaces with evidence that was not shared yet."""


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
            source: whose it is.
            fingerprint: of the model and its probe; another one's evidence is never met.
            now: Unix time, seconds.
        """
        self._store = store
        self._source = source
        self._fingerprint = fingerprint
        self._now = now
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to share in the background of the running event loop."""
        self._task = asyncio.create_task(self._run(), name="evidence")

    async def stop(self) -> None:
        """Share what is left, within moments."""
        await stop_tasks(self._task)
        try:
            await asyncio.wait_for(self.share(), _LAST_S)
        except TimeoutError:
            _log.warning("the last evidence could not be shared in time")

    async def share(self, *, new_ones_only: bool = False) -> None:
        """Share the news of every namespace that has some; what cannot be shared waits."""
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
                # The store may have applied the write and its reply been lost.
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
