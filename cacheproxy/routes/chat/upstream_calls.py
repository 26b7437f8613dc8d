"""Calls of upstreams: requests for the same answer share one call, whose answer is passed on live.

The answer is read along, and handed on to be kept if it is a complete one. A call that cannot
begin, breaks off or brings no answer is an `UpstreamFailed` for everyone who waits for it; a
request that had joined another's call then asks once itself.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cacheproxy.errors import ApiError, BadRequest, UpstreamFailed
from cacheproxy.fairness.meters import Meters
from cacheproxy.keys import encode_fields
from cacheproxy.routes.chat.state import CompletionState, Passed
from cacheproxy.routes.dialects.completion import Completion, malformed
from cacheproxy.routes.dialects.dialect import Dialect
from cacheproxy.routes.dialects.sse import EventCutter
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.flights import Flights
from cacheproxy.tiers.streamed import StreamFlight
from cacheproxy.upstreams.fallback import Upstreams
from cacheproxy.upstreams.head import CREDENTIALS, Head

if TYPE_CHECKING:
    from cacheproxy.upstreams.client import UpstreamResponse

logger = logging.getLogger(__name__)

_LAST_BYTES_S = 1.0
"""Time for an upstream to end its stream after the last event, so that its connection is reused."""

_BYTES_A_TOKEN = 4

Call = StreamFlight[Head]

Keep = Callable[[Completion, float, Call, CompletionState], None]
"""Takes a complete answer, the seconds that it took, its call, and the request's state."""


class UpstreamCalls:
    """The calls of all models' upstreams."""

    def __init__(
        self,
        upstreams: Upstreams,
        purges: Purges,
        keep: Keep,
        *,
        most_bytes: int,
        dialects: Mapping[str, Dialect],
        metrics: Metrics,
        meters: Meters | None = None,
    ) -> None:
        """Prepare; answers of up to `most_bytes` are held whole, and handed to `keep`.

        `dialects` are by name; `meters` count the tokens of tenants.
        """
        self._meters = meters or Meters({})
        self._upstreams = upstreams
        self._purges = purges
        self._keep = keep
        self._dialects = dialects
        self._most_bytes = most_bytes
        self._flights = Flights[Call](purges)
        self._waiting = metrics.chat_waiting

    def scope_of(self, model: str, client: Mapping[bytes, bytes]) -> str:
        """Return the part of a key that names who answers: the first upstream with the model.

        Other upstreams only stand in for it. Where the caller's own authorization decides whether
        there is an answer, its hash is a part of the scope.

        Raises:
            BadRequest: no upstream has the model.
        """
        first = self._upstreams.first(model)
        if first is None:
            raise BadRequest(
                f"the model {model[:100]!r} is not served here",
                status=404,
                param="model",
                code="model_not_found",
            )
        if self.is_shared(model):
            return first.base_url
        given = encode_fields(*(client.get(name, b"") for name in CREDENTIALS))
        digest = hashlib.sha256(given).hexdigest()
        return f"{first.base_url}#{digest}"

    def is_shared(self, model: str) -> bool:
        """Return whether callers with different authorization share the entries of a model."""
        return not self._upstreams.passes_authorization(model)

    async def answer(self, state: CompletionState) -> Passed:
        """Return the upstream's answer, shared with other requests for the same.

        A request that joined a call which then failed asks once itself: the cause may have been the
        other request's alone.

        Raises:
            UpstreamFailed, Unavailable: no upstream could answer.
        """
        call = self.in_flight(state)
        if call is not None and (passed := await self._follow(call, state)):
            return passed
        again = self.in_flight(state) if call is not None else None
        reader = (again or self.begin(state)).read()
        try:
            head = await reader.flight.head()
        except BaseException:
            reader.flight.leave(reader)
            raise
        is_bypass = not state.key
        return Passed(head, reader, is_bypass, again is not None, state.stages_s)

    def in_flight(self, state: CompletionState) -> Call | None:
        """Return the call that the request can join, if there is one."""
        if not state.key:
            return None
        return self._flights.get(state.namespace_id, state.key, state.request.form)

    def begin(self, state: CompletionState) -> Call:
        """Begin a call; it goes on as long as anyone reads it."""
        call: Call = StreamFlight(self._purges, most_bytes=self._most_bytes, waiting=self._waiting)
        if state.key:
            self._flights.add(call, state.key, state.request.form)
        call.start(self._run(call, state))
        return call

    async def _follow(self, call: Call, state: CompletionState) -> Passed | None:
        """Return what a call in flight brings; None if it brings no answer."""
        reader = call.read()
        try:
            head = await call.head()
        except ApiError:
            call.leave(reader)
            return None
        except BaseException:
            call.leave(reader)
            raise
        if head.status != 200:
            call.leave(reader)
            return None
        return Passed(head, reader, is_bypass=False, collapsed=True, stages_s=state.stages_s)

    async def _run(self, call: Call, state: CompletionState) -> None:
        """Make one call, report its progress to its readers, and have its answer kept."""
        request, response = state.request, None
        dialect = self._dialects[request.dialect]
        started = time.perf_counter()

        def keep(completion: Completion | None) -> None:
            self._count_tokens(completion, state)
            if completion is None or not state.key or len(completion.body) > self._most_bytes:
                return
            if completion.calls_tools and not request.keeps_tool_calls:
                return
            self._keep(completion, time.perf_counter() - started, call, state)

        try:
            response = await self._upstreams.post(
                request.model, dialect.path, request.body, state.client
            )
            if request.form == "stream" and response.head.status == 200:
                await self._pass_stream(response, dialect, call, keep)
            else:
                body = await response.read()
                if response.head.status == 200:
                    keep(dialect.read(body))
                call.begin(response.head)
                await call.add(body)
            call.end()
        except ApiError as error:
            if response is not None:
                kind = (error.code or "").removeprefix("upstream_")
                self._upstreams.broke_off(response.head.upstream, kind)
            call.fail(error)
        except Exception:
            logger.exception("unexpected exception in a call of an upstream")
            call.fail(UpstreamFailed("the upstream's answer could not be passed on"))
        finally:
            self._flights.remove(call, state.key, request.form)
            if response is not None:
                response.close()

    def _count_tokens(self, completion: Completion | None, state: CompletionState) -> None:
        """Put the tokens of an answer on its tenant's account; those that are not told, by size."""
        meter = self._meters.of(state.namespace_id)
        if meter is None:
            return
        tokens = len(state.request.body) // _BYTES_A_TOKEN
        if completion is not None:
            told = completion.prompt_tokens + completion.completion_tokens
            tokens = (
                told if completion.has_usage else tokens + len(completion.body) // _BYTES_A_TOKEN
            )
        meter.used(tokens)

    async def _pass_stream(
        self,
        response: "UpstreamResponse",
        dialect: Dialect,
        call: Call,
        keep: Callable[[Completion | None], None],
    ) -> None:
        if not response.head.is_of(b"text/event-stream"):
            raise malformed("it was asked for a stream, and answered something else")
        cutter, assembler = EventCutter(), dialect.assembler()
        has_begun = False
        async for chunk in response.chunks():
            events = cutter.cut(chunk)
            well = assembler.take_all(events)
            if assembler.is_done:
                keep(assembler.completion() if call.is_held else None)
            if well and not has_begun:
                call.begin(response.head)
                has_begun = True
            if well:
                await call.add(b"".join(events[:well]))
            if well < len(events):
                raise malformed("an event of its stream is not a JSON object")
            if assembler.is_done:
                call.end()
                await _read_out(response)
                return
        raise UpstreamFailed("the upstream broke off its answer", code="upstream_truncated")


async def _read_out(response: "UpstreamResponse") -> None:
    """Read to the end of a stream whose last event has arrived."""
    try:
        async with asyncio.timeout(_LAST_BYTES_S):
            await response.read()
    except (TimeoutError, UpstreamFailed):
        return
