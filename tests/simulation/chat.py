"""Chat in the simulation: an upstream that answers, judges and fails, and rules for its answers.

Every answer names itself, and its last word shows that it is whole.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from cacheproxy.errors import ApiError, NotCached, Overloaded, Unavailable, UpstreamFailed
from cacheproxy.routes.chat.state import Cached
from cacheproxy.thresholds.judged.evidence import Outcome
from tests.simulation.machine import Asker, asker
from tests.simulation.model import Model
from tests.simulation.world import EPOCH_S, SimLoop, World

_NAMED = re.compile(rb"answer (\d+) ")
_END = "and that is all"


@dataclass(eq=False)
class Answer:
    """One answer of the upstream."""

    serial: int
    question: str
    by: Asker | None
    began: float
    is_whole: bool


@dataclass
class SimUpstream:
    """One server of a chat model, which is also its judge.

    Attributes:
        answers: by serial.
        slow_s: how long it takes, at most.
        failing: the share of answers with status 500.
        breaking: the share of answers that break off.
        verdict: what it says as a judge.
    """

    world: World
    answers: dict[int, Answer] = field(default_factory=dict)
    slow_s: float = 0.02
    failing: float = 0.0
    breaking: float = 0.0
    verdict: str = "ACCEPT"


class SimSession:
    """Stands for aiohttp's `ClientSession`, of one server."""

    def __init__(self, upstream: SimUpstream, loop: SimLoop) -> None:
        self._upstream, self._loop = upstream, loop

    async def close(self) -> None:
        """Nothing is open."""

    async def request(self, method: str, url: str, *, data: bytes, **_: Any) -> "SimResponse":
        upstream, chance = self._upstream, self._upstream.world.chance.random
        asked = json.loads(data)
        began = upstream.world.now
        await self.pause(chance() * upstream.slow_s)
        if chance() < upstream.failing:
            return SimResponse(self, 500, "application/json", [b'{"error": {"message": "no"}}'])
        question = asked["messages"][-1]["content"]
        is_judge = asked["messages"][0]["role"] == "system"
        is_whole = chance() >= upstream.breaking
        if is_judge:
            text = upstream.verdict
        else:
            serial = len(upstream.answers) + 1
            upstream.answers[serial] = Answer(serial, question, asker.get(), began, is_whole)
            text = f"answer {serial} to {question.split()[0]} {_END}"
        parts = _stream(text) if asked.get("stream") else _whole(text)
        if not is_whole:
            parts = [*parts[:-1], b""] if len(parts) > 1 else [parts[0][: len(parts[0]) // 2], b""]
        kind = "text/event-stream" if asked.get("stream") else "application/json"
        return SimResponse(self, 200, kind, parts)

    async def pause(self, seconds: float) -> None:
        done = self._loop.create_future()
        self._upstream.world.call_in(seconds, lambda: done.done() or done.set_result(None))
        await done


class SimResponse:
    """Stands for aiohttp's `ClientResponse`; an empty part is where it breaks off."""

    def __init__(self, session: SimSession, status: int, kind: str, parts: list[bytes]) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": kind}
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.content = self
        self._session, self._parts = session, parts

    async def readany(self) -> bytes:
        await self._session.pause(0.001)
        if not self._parts:
            return b""
        part = self._parts.pop(0)
        if not part:
            raise aiohttp.ClientPayloadError("the connection broke")
        return part

    def close(self) -> None:
        """Nothing is open."""


def _whole(text: str) -> list[bytes]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 400, "completion_tokens": 400, "total_tokens": 800}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "gpt"}
    return [json.dumps({**answer, "choices": [choice], "usage": usage}).encode()]


def _stream(text: str) -> list[bytes]:
    answer = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt"}
    words = text.split(" ")
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": " ".join(words[:2]) + " "}, None),
        ({"content": " ".join(words[2:])}, None),
        ({}, "stop"),
    ]
    events = []
    for delta, reason in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        events.append(b"data: " + json.dumps({**answer, "choices": [choice]}).encode() + b"\n\n")
    return [*events, b"data: [DONE]\n\n"]


class ChatModel:
    """Judges the answers of the completions route."""

    def __init__(self, model: Model, upstream: SimUpstream, *, ttl_s: float, stale: Any) -> None:
        self._model, self._upstream, self._ttl_s, self._stale = model, upstream, ttl_s, stale

    def cached(self, server: Any, asked: Any, cached: Cached, started: float) -> None:
        """Judge an answer from the cache."""
        model, record = self._model, cached.record
        model.seen[f"chat {cached.outcome}"] += 1
        found = _NAMED.search(record.body)
        one = self._upstream.answers.get(int(found.group(1))) if found else None
        if one is None:
            model.breaks("real", f"{server.name} served an answer that nobody gave")
            return
        about = f"{server.name} request {asked.number} ({cached.outcome}): answer {one.serial}"
        if not one.is_whole or _END.encode() not in record.body:
            model.breaks("complete", f"{about} is not whole")
        if cached.outcome != "semantic" and one.question != asked.question:
            model.breaks("key", f"{about} is to another question")
        by = one.by or Asker(0, None)
        if by.namespace != asked.namespace or record.namespace_id != asked.namespace.id:
            model.breaks("tenant", f"{about} was made for {by.namespace}")
        if by.no_store:
            model.breaks("no-store", f"{about} was not to be stored")
        model.judge_purges(server, asked.namespace, one.question, one, by, started, about)
        made = record.created_at - EPOCH_S - max(model.offsets_s)
        past_s = started - made - model.clock_slack_s - 0.002 - (by.ttl_s or self._ttl_s)
        allowed_s = self._stale.while_revalidate_s
        if cached.failed_with is not None:
            allowed_s = max(allowed_s, self._stale.if_error_s + 1.0)
        if past_s > allowed_s:
            model.breaks("ttl", f"{about} was {past_s:.3f} s past its time")

    def passed(self, server: Any, asked: Any, body: bytes) -> None:
        """Judge an answer that was passed on to its end."""
        self._model.seen["chat passed"] += 1
        if b'"error"' not in body and _END.encode() not in body:
            self._model.breaks("complete", f"{server.name}: what was passed on ends too early")

    def failed(self, server: Any, asked: Any, error: Exception) -> None:
        """Judge a request that ended with an error."""
        self._model.seen[type(error).__name__] += 1
        known = NotCached | Overloaded | Unavailable | UpstreamFailed
        if not isinstance(error, ApiError) or not isinstance(error, known):
            self._model.breaks("answered", f"{server.name} request {asked.number}: {error!r}")

    def watch(self, server: Any, completions: Any) -> None:
        """See all labels of a server."""
        make = completions._make_likeness

        def make_and_watch(name: str) -> Any:
            likeness = make(name)
            if likeness.evidence is not None:
                observe = likeness.evidence._namespaces.observe

                def observed(
                    namespace: str, pick: Any, outcome: Any, *, is_judged: bool, **more: Any
                ) -> None:
                    self._model.seen["chat label"] += 1
                    if is_judged and not self._says(outcome):
                        self._model.breaks(
                            "label", f"{server.name} took {outcome.name} from no judge"
                        )
                    observe(namespace, pick, outcome, is_judged=is_judged, **more)

                likeness.evidence._namespaces.observe = observed
            return likeness

        completions.models._likeness_of = make_and_watch

    def _says(self, outcome: Outcome) -> bool:
        is_accepted = self._upstream.verdict == "ACCEPT"
        return outcome == (Outcome.ACCEPTED if is_accepted else Outcome.REJECTED)
