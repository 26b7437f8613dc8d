"""The models that upstreams say they have, for `GET /v1/models`.

An upstream is asked for its list when a client asks for ours, at most once a minute, and is waited
for two seconds at most. While it gives no list, its last one counts, and the models that are
configured by name are always there. An upstream that is sent its callers' own keys is not asked, as
its list would be that of one caller.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from cacheproxy.errors import UpstreamFailed
from cacheproxy.upstreams.fallback import Upstreams

if TYPE_CHECKING:
    from cacheproxy.upstreams.client import Upstream

logger = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_FRESH_S = 60.0
_RETRY_S = 10.0
"""How long a list is used, and how long an upstream without one is left alone."""

_MOST_MODELS = 4_096
_LONGEST_ID = 256
"""Of one upstream; what is beyond is left out."""

Kind = Literal["embeddings", "rerank", "completions"]


class UpstreamModel(NamedTuple):
    """A model of an upstream.

    Attributes:
        id: its name there.
        kind: what it is configured for; None if only the upstream's list names it.
        created: Unix time, seconds, if the upstream tells it.
        owned_by: in the upstream's words, if it tells it.
    """

    id: str
    kind: Kind | None = None
    created: int | None = None
    owned_by: str | None = None


class _Item(msgspec.Struct):
    id: str
    created: int | float | None = None
    owned_by: str | None = None


class _List(msgspec.Struct):
    data: list[_Item]


_LIST = msgspec.json.Decoder(_List)


class _Listing:
    """What one upstream has said."""

    def __init__(self, upstream: "Upstream") -> None:
        self.upstream = upstream
        self.models: dict[str, UpstreamModel] = {}
        self.ask_at = float("-inf")

    def known(self) -> Iterable[UpstreamModel]:
        """Yield the models that are configured, then those that the upstream lists."""
        settings = self.upstream.settings
        for name in settings.models:
            listed = self.models.get(name, UpstreamModel(name))
            yield listed._replace(kind="completions")
        for name in settings.embeddings:
            yield self.models.get(name, UpstreamModel(name))._replace(kind="embeddings")
        for name in settings.rerank:
            yield self.models.get(name, UpstreamModel(name))._replace(kind="rerank")
        if settings.has_any_chat_model:
            yield from self.models.values()


class Catalogue:
    """The models of all upstreams."""

    def __init__(
        self, upstreams: Upstreams, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstreams = upstreams
        self._listings: list[_Listing] = []
        self._monotonic = monotonic
        self._refresh: asyncio.Task[None] | None = None

    async def models(self) -> list[UpstreamModel]:
        """Return the models by name; the first upstream that has a name describes it."""
        now = self._monotonic()
        # The upstreams may have changed; one that has changed is another one.
        known = {listing.upstream: listing for listing in self._listings}
        self._listings = [known.get(one) or _Listing(one) for one in self._upstreams.all()]
        if any(listing.ask_at <= now for listing in self._listings):
            if self._refresh is None or self._refresh.done():
                self._refresh = asyncio.create_task(self._ask_all())
            # One refresh serves all that wait, so none of them may cancel it.
            await asyncio.shield(self._refresh)
        found: dict[str, UpstreamModel] = {}
        for listing in self._listings:
            for model in listing.known():
                found.setdefault(model.id, model)
        return list(found.values())

    async def _ask_all(self) -> None:
        now = self._monotonic()
        await asyncio.gather(*(self._ask(one) for one in self._listings if one.ask_at <= now))

    async def _ask(self, listing: _Listing) -> None:
        if listing.upstream.settings.pass_authorization:
            listing.ask_at = float("inf")
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                items = await _fetch(listing.upstream)
        except (UpstreamFailed, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.info("the upstream %s gives no list of models: %s", listing.upstream.name, error)
            listing.ask_at = self._monotonic() + _RETRY_S
            return
        listing.models = {
            item.id: UpstreamModel(
                item.id,
                created=None if item.created is None else int(item.created),
                owned_by=item.owned_by,
            )
            for item in items[:_MOST_MODELS]
            if 0 < len(item.id) <= _LONGEST_ID
        }
        listing.ask_at = self._monotonic() + _FRESH_S


async def _fetch(upstream: "Upstream") -> list[_Item]:
    answer = await upstream.get("models")
    try:
        body = await answer.read()
    finally:
        answer.close()
    if answer.head.status != 200:
        raise UpstreamFailed(f"it answers {answer.head.status}")
    return _LIST.decode(body).data
