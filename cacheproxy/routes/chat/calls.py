"""Calls of upstreams: one in flight for all who ask the same, passed on as it comes.

What comes is read along, and handed over to be kept if it is a whole completion. What does not
begin, breaks off or is no answer is an `UpstreamFailed` for everybody who waits; who had joined
another's call asks once more.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from cacheproxy.errors import ApiError, UpstreamFailed
from cacheproxy.routes.chat.completion import Completion, keepable, malformed, read_answer
from cacheproxy.routes.chat.events import Assembler, EventCutter
from cacheproxy.routes.chat.flights import Flight, Flights
from cacheproxy.routes.chat.journey import Journey, Passed
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.upstreams.client import Answer
from cacheproxy.upstreams.fallback import CHAT, Upstreams

logger = logging.getLogger(__name__)

_LAST_BYTES_S = 1.0
"""What an upstream gets to end its stream after the last event, so that its connection is kept."""

Keep = Callable[[Completion, float, Flight, int, Journey], None]
"""Takes a completion, the seconds that it took, its flight, the generation (`Purges`) at which that
began, and whose it is."""


class Calls:
    """The calls of all models' upstreams."""

    def __init__(
        self,
        upstreams: Upstreams,
        purges: Purges,
        keep: Keep,
        *,
        most_bytes: int,
        metrics: Metrics,
    ) -> None:
        """Prepare; answers of up to `most_bytes` are held whole, and handed to `keep`."""
        self._upstreams = upstreams
        self._purges = purges
        self._keep = keep
        self._most_bytes = most_bytes
        self._flights = Flights()
        self._waiting = metrics.chat_waiting

    async def answer(self, journey: Journey) -> Passed:
        """Return the upstream's answer, read along with others who ask the same.

        One who joined a call that then failed asks once on his own: what went wrong with another's
        call need not with his.

        Raises:
            UpstreamFailed, Unavailable: no upstream could answer.
        """
        flight = self.in_flight(journey)
        if flight is not None and (passed := await self._follow(flight, journey)):
            return passed
        again = self.in_flight(journey) if flight is not None else None
        reader = (again or self.begin(journey)).read()
        try:
            head = await reader.flight.head()
        except BaseException:
            reader.flight.leave(reader)
            raise
        is_bypass = not journey.key
        return Passed(head, reader, is_bypass, again is not None, journey.stages_s)

    def in_flight(self, journey: Journey) -> Flight | None:
        """Return the call that can be joined, unless it began before a purge of what it brings."""
        if not journey.key:
            return None
        flight = self._flights.get(journey.key, journey.request.form)
        if flight is None:
            return None
        is_untouched = self._purges.is_untouched(journey.namespace_id, journey.key, flight.since)
        return flight if is_untouched else None

    def begin(self, journey: Journey) -> Flight:
        """Begin a call; it goes on as long as anybody reads it."""
        flight = Flight(self._purges.moment, most_bytes=self._most_bytes, waiting=self._waiting)
        if journey.key:
            self._flights.put(journey.key, journey.request.form, flight)
        flight.start(self._fly(flight, self._purges.generation, journey))
        return flight

    async def _follow(self, flight: Flight, journey: Journey) -> Passed | None:
        """Return what a call in flight brings; None if it brings no answer."""
        reader = flight.read()
        try:
            head = await flight.head()
        except ApiError:
            flight.leave(reader)
            return None
        except BaseException:
            flight.leave(reader)
            raise
        if head.status != 200:
            flight.leave(reader)
            return None
        return Passed(head, reader, is_bypass=False, collapsed=True, stages_s=journey.stages_s)

    async def _fly(self, flight: Flight, generation: int, journey: Journey) -> None:
        """Make one call, tell the flight how it goes, and have kept what it brings."""
        request, answer = journey.request, None
        started = time.perf_counter()

        def keep(completion: Completion | None) -> None:
            if completion is None or not journey.key or len(completion.body) > self._most_bytes:
                return
            took_s = time.perf_counter() - started
            self._keep(completion, took_s, flight, generation, journey)

        try:
            answer = await self._upstreams.post(request.model, CHAT, request.body, journey.client)
            if request.form == "stream" and answer.head.status == 200:
                await self._pass_stream(answer, flight, keep)
            else:
                body = await answer.read()
                if answer.head.status == 200:
                    keep(keepable(read_answer(body), body))
                flight.begin(answer.head)
                await flight.add(body)
            flight.end()
        except ApiError as error:
            if answer is not None:
                kind = (error.code or "").removeprefix("upstream_")
                self._upstreams.broke_off(answer.head.upstream, kind)
            flight.fail(error)
        except Exception:
            logger.exception("a mistake in a call of an upstream")
            flight.fail(UpstreamFailed("the upstream's answer could not be passed on"))
        finally:
            self._flights.remove(journey.key, request.form, flight)
            if answer is not None:
                answer.close()

    async def _pass_stream(
        self, answer: Answer, flight: Flight, keep: Callable[[Completion | None], None]
    ) -> None:
        if not answer.head.is_of(b"text/event-stream"):
            raise malformed("it was asked for a stream, and answered something else")
        cutter, assembler = EventCutter(), Assembler()
        has_begun = False
        async for chunk in answer.chunks():
            events = cutter.cut(chunk)
            well = assembler.take_all(events)
            if assembler.is_done:
                keep(assembler.completion() if flight.is_held else None)
            if well and not has_begun:
                flight.begin(answer.head)
                has_begun = True
            if well:
                await flight.add(b"".join(events[:well]))
            if well < len(events):
                raise malformed("an event of its stream is not a JSON object")
            if assembler.is_done:
                flight.end()
                await _read_out(answer)
                return
        raise UpstreamFailed("the upstream broke off its answer", code="upstream_truncated")


async def _read_out(answer: Answer) -> None:
    """Read to the end of a stream whose last event has come."""
    try:
        async with asyncio.timeout(_LAST_BYTES_S):
            await answer.read()
    except (TimeoutError, UpstreamFailed):
        return
