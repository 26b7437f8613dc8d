"""Finds an entry for operators, by its text, its request or its key, and tells what is known of it.

What is told are facts about the entry; neither the text that it was made for nor its content is.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from cacheproxy.admin.facts import EntryFacts, read_facts
from cacheproxy.admin.report import HexKey
from cacheproxy.admin.workers import AllWorkers, HeldEntry, Inquiry
from cacheproxy.errors import BadRequest, Unavailable
from cacheproxy.inference.input import Input, Pair
from cacheproxy.keys import Namespace, hex_id
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.stores.protocol import Entry, Store
from cacheproxy.validation import convert

_WRITTEN_S, _LOOK_S = 0.1, 0.005
"""The longest time that entries are waited for, and the pause until workers are asked again. An
entry is usually written within 20 ms."""

Api = Literal["chat", "responses", "messages", "completions"]

RequestKey = Callable[[str, str, bytes], bytes]
"""Returns the key of a completion request: given the id of a namespace, the API, and the body."""


class FindRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A namespace, and whose entry to find: exactly one of text, request and key."""

    tenant: Annotated[str, Meta(description="The namespace's tenant; `default` without API keys.")]
    namespace: Annotated[str, Meta(description="The namespace's name, such as `default`.")]
    text: Annotated[
        str | None, Meta(description="The text whose embeddings to find, under every model.")
    ] = None
    query: Annotated[
        str | None,
        Meta(description="With a text: find the score of this document for this query instead."),
    ] = None
    request: Annotated[
        dict[str, Any] | None, Meta(description="The body of a completion request, as it was sent.")
    ] = None
    api: Annotated[Api, Meta(description="The API of the request.")] = "chat"
    key: Annotated[HexKey | None, Meta(description="An entry's key in hex.")] = None

    @property
    def kind(self) -> str:
        """What names the entry, in a word, and nothing of its name."""
        named = {"key": self.key, "text": self.text, "request": self.request}
        given = [word for word, value in named.items() if value is not None]
        if len(given) != 1:
            raise BadRequest("exactly one of text, request and key must be given")
        if self.query is not None and self.text is None:
            raise BadRequest("a query is given with the text of its document", param="query")
        return given[0]


class SoughtEntry(msgspec.Struct):
    """A key under which was looked, for a model; null where the key itself was given."""

    key: str
    model: str | None


class FoundEntry(msgspec.Struct, kw_only=True):
    """An entry, and where it is."""

    key: str
    model: Annotated[str | None, Meta(description="Null if no model of this server made it.")]
    facts: Annotated[
        EntryFacts | None, Meta(description="Null if this version cannot read the record.")
    ]
    is_stored: Annotated[bool, Meta(description="Whether the store has it.")]
    waits_in: Annotated[list[int], Meta(description="Workers in whose queue it is to be stored.")]
    hot_in: Annotated[list[int], Meta(description="Workers that have it in the hot tier, by pid.")]
    size_bytes: Annotated[int | None, Meta(description="Of the record in the store.")]
    is_indexed: Annotated[bool, Meta(description="Whether other texts can find it by probe.")]
    tags: Annotated[list[str], Meta(description="Hashes of its tags: stores have no others.")]


class FoundEntries(msgspec.Struct):
    """What was found."""

    entries: list[FoundEntry]
    sought: list[SoughtEntry]


class _Sought(NamedTuple):
    key: bytes
    model: str | None


class EntryFinder:
    """Finds entries in the store and in the workers' memory."""

    def __init__(
        self,
        store: Store,
        workers: AllWorkers,
        *,
        embedding: Sequence[ItemsRoute[Any]],
        reranking: Sequence[ItemsRoute[Any]],
        key_of_request: RequestKey | None,
    ) -> None:
        """Prepare; without upstreams there is no `key_of_request`."""
        self._store = store
        self._workers = workers
        self._embedding, self._reranking = embedding, reranking
        self._key_of_request = key_of_request

    def keys_of(self, namespace_id: str, given: Input) -> list[bytes]:
        """Return the keys of an input in a namespace, one for each model of its kind."""
        return [one.key for one in self._of_input(namespace_id, given)]

    async def find(self, order: FindRequest) -> FoundEntries:
        """Return the entries of a text, of a request or with a key.

        Raises:
            BadRequest: not exactly one is given, or a request that has no entry.
            StoreError: the store did not answer.
            Unavailable: the supervisor does not answer.
        """
        namespace_id = Namespace(order.tenant, order.namespace).id
        sought = self._sought(order, namespace_id)
        inquiry = Inquiry("held", namespace_id, [one.key for one in sought])
        held: dict[bytes, list[tuple[int, HeldEntry]]] = {}
        for said in await self._workers.ask(inquiry):
            for each in said.held:
                held.setdefault(each.key, []).append((said.pid, each))
        entries = []
        for one in sought:
            entry = await self._store.entry(one.key)
            if entry is not None and entry.partition.namespace_id != hex_id(namespace_id):
                continue
            if entry is not None or one.key in held:
                entries.append(self._describe(one, namespace_id, entry, held.get(one.key, [])))
        return FoundEntries(entries, [SoughtEntry(one.key.hex(), one.model) for one in sought])

    async def written(self, namespace_id: str, keys: Sequence[bytes]) -> None:
        """Wait until workers have stored the entries of keys, or all of a namespace without keys.

        Not for long: new entries may come all the time, or the store may take none.
        """
        inquiry = Inquiry("waiting", namespace_id, list(keys))
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_WRITTEN_S):
                while any(said.waiting for said in await self._workers.ask(inquiry)):
                    await asyncio.sleep(_LOOK_S)

    def _sought(self, order: FindRequest, namespace_id: str) -> list[_Sought]:
        order.kind  # noqa: B018 - checks that exactly one is given
        if order.key is not None:
            key: str = convert(order.key, HexKey, "the key", param="key")
            return [_Sought(bytes.fromhex(key), None)]
        if order.text is not None:
            given = order.text if order.query is None else Pair(order.query, order.text)
            return self._of_input(namespace_id, given)
        if self._key_of_request is None:
            raise BadRequest("this server has no upstream that completes", param="request")
        body = msgspec.json.encode(order.request)
        model = (order.request or {}).get("model")
        key_of_request = self._key_of_request(namespace_id, order.api, body)
        return [_Sought(key_of_request, model if isinstance(model, str) else None)]

    def _of_input(self, namespace_id: str, given: Input) -> list[_Sought]:
        routes = self._reranking if isinstance(given, Pair) else self._embedding
        return [_Sought(one.key_of(namespace_id, given), one.model.name) for one in routes]

    def _describe(
        self,
        sought: _Sought,
        namespace_id: str,
        entry: Entry | None,
        held: Sequence[tuple[int, HeldEntry]],
    ) -> FoundEntry:
        facts = next((one.facts for _, one in held), None)
        if entry is not None:
            read = read_facts(entry.record, namespace_id=namespace_id, key=sought.key)
            facts = read or facts
        model = sought.model or (facts.model if facts else None)
        return FoundEntry(
            key=sought.key.hex(),
            model=model or self._model_of(entry, namespace_id),
            facts=facts,
            is_stored=entry is not None,
            waits_in=[pid for pid, one in held if one.is_waiting],
            hot_in=[pid for pid, one in held if one.is_hot],
            size_bytes=None if entry is None else len(entry.record),
            is_indexed=entry is not None and entry.probe is not None,
            tags=[] if entry is None else [str(tag) for tag in entry.tags],
        )

    def _model_of(self, entry: Entry | None, namespace_id: str) -> str | None:
        if entry is None:
            return None
        for route in (*self._embedding, *self._reranking):
            if route.partition_of(namespace_id).model_id == entry.partition.model_id:
                return route.model.name
        return None
