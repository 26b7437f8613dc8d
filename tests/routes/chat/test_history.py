"""Whatever tenants ask, and however upstreams fail: what is served was answered in full to them.

Histories are drawn; the pipeline is the real one, with real tiers, over an upstream that answers,
stops short, breaks off, errs or stalls by its script, and a store that keeps what it is given.
"""

import asyncio
import json

from faulty import FaultyStore
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.errors import ApiError, UpstreamFailed
from cacheproxy.keys import Namespace
from cacheproxy.routes.chat.learning import Learning
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord, pack, unpack
from cacheproxy.routes.chat.refresh import Refresh
from cacheproxy.routes.chat.staleness import Staleness, StalenessRules
from cacheproxy.routes.chat.state import Passed
from cacheproxy.routes.chat.upstream_calls import UpstreamCalls
from cacheproxy.routes.completions import CompletionsRoute
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.dialects.chat_stream import ChatAssembler as Assembler
from cacheproxy.routes.dialects.sse import EventCutter
from cacheproxy.routes.dialects.text import text_of
from cacheproxy.routes.exchange import Control
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack
from cacheproxy.upstreams.client import Head

ENDS = ("whole", "length", "broken", "error", "refused", "tools", "garbage", "no done")


class Answering:
    """An upstream's answer, by its script."""

    def __init__(self, asked, text, end):
        self.asked, self.text, self.end = asked, text, end
        is_stream = asked.get("stream") is True
        kind = b"text/event-stream" if is_stream else b"application/json"
        self.head = Head(503 if end == "error" else 200, kind, [], "u")

    def close(self):
        pass

    async def read(self):
        await asyncio.sleep(0)
        if self.end == "broken":
            raise UpstreamFailed("broken", code="upstream_truncated")
        if self.end == "garbage":
            return b"{"
        return json.dumps({"choices": [self._choice()], "usage": USAGE}).encode()

    def _choice(self):
        message = {"role": "assistant", "content": self.text}
        if self.end == "tools":
            message["tool_calls"] = [{"id": "1"}]
        reason = "length" if self.end == "length" else "stop"
        return {"index": 0, "message": message, "finish_reason": reason}

    async def chunks(self):
        def chunk(delta, reason=None):
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            return b"data: " + json.dumps({"choices": choices, "usage": USAGE}).encode() + b"\n\n"

        for word in self.text.split(" "):
            await asyncio.sleep(0)
            yield chunk({"content": f"{word} "})
        if self.end == "broken":
            raise UpstreamFailed("broken", code="upstream_truncated")
        if self.end == "garbage":
            yield b"data: {\n\n"
        if self.end == "tools":
            yield chunk({"tool_calls": [{"index": 0, "id": "1"}]})
        yield chunk({}, "length" if self.end == "length" else "stop")
        if self.end != "no done":
            yield b"data: [DONE]\n\n"


USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


class ScriptedUpstreams:
    """As `Upstreams`, with the script's answers, which are all different."""

    def __init__(self, script):
        self.script = list(script)
        self.finished = {}  # by text: the question to which it was a whole answer
        self.count = 0

    def first(self, model):
        return UpstreamSettings(base_url="http://127.0.0.1/v1")

    def passes_authorization(self, model):
        return False

    def broke_off(self, upstream, kind):
        pass

    async def post(self, model, path, body, client):
        await asyncio.sleep(0)
        asked = json.loads(body)
        end = self.script.pop() if self.script else "whole"
        if end == "refused":
            raise UpstreamFailed("refused", code="upstream_connect")
        self.count += 1
        text = f"answer {self.count} to {client['tenant']} {asked['messages'][-1]['content']}"
        if end == "whole" or (end == "no done" and not asked["stream"]):
            self.finished[text] = (client["tenant"], asked["messages"][-1]["content"])
        return Answering(asked, text, end)


class Harness:
    def __init__(self, script, hot_bytes):
        metrics = Metrics()
        self.store = FaultyStore()
        self.upstreams = ScriptedUpstreams(script)
        guard = StoreGuard(self.store, deadline_s=5, metrics=metrics)
        self.writeback = WriteBack(self.store, max_entries=100, metrics=metrics)
        purges = self.store.purges
        hot = HotTier[CompletionRecord](hot_bytes, purges)
        exact = ExactTier(guard, self.writeback, RecordReader(unpack, metrics))
        tiers = KeyedTiers(hot, exact, purges)
        models = ChatModels([], None)
        staleness = StalenessRules(Staleness(), {})
        learning = Learning(
            models,
            Keeper(hot, self.writeback, pack),
            tiers=tiers,
            lifetimes=Lifetimes(3_600, by_namespace_id={}, jitter=0),
            staleness=staleness,
            spare_work=SpareWork(lambda: True, most=10, metrics=metrics),
            purge=lambda scope: asyncio.sleep(0, 0),
            metrics=metrics,
        )
        calls = UpstreamCalls(
            self.upstreams,
            purges,
            learning.keep,
            most_bytes=10_000,
            dialects={"chat": ChatDialect()},
            metrics=metrics,
        )
        self.route = CompletionsRoute(
            models,
            calls,
            learning,
            Refresh(calls, hot),
            tiers=tiers,
            purges=purges,
            staleness=staleness,
            caches_tools=lambda namespace_id: False,
            metrics=metrics,
        )

    async def ask(self, tenant, question, stream, leaves):
        """Return the text of a hit, and None of what was passed on."""
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        sent = json.dumps({**body, "stream": stream}).encode()
        request = ChatDialect().parse(sent, max_temperature=1)
        asking = asyncio.ensure_future(
            self.route.serve(request, Namespace(tenant, "n"), Control(), {"tenant": tenant})
        )
        if leaves:
            await asyncio.sleep(0)
            asking.cancel()
        answer = await asking
        if not isinstance(answer, Passed):
            return text_of(answer.record.body)
        with answer.reader:
            data = await answer.reader.body()
        self.check_passed(answer, data, tenant, question)
        return None

    def check_passed(self, answer, data, tenant, question):
        """What was passed on, in part or whole, was answered to this tenant's question."""
        if answer.head.status != 200:
            return
        if answer.head.is_of(b"application/json"):
            text = json.loads(data)["choices"][0]["message"]["content"]
        else:
            assembler = Assembler()
            assembler.take_all(EventCutter().cut(data))
            text = "".join(assembler._texts.get("content", []))
        assert f" to {tenant} {question}" in text


steps = st.tuples(
    st.sampled_from(["acme", "other"]),
    st.sampled_from(["Why?", "How?"]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(ENDS), max_size=8),
    st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=5),
    st.sampled_from([0, 100_000]),
)
def test_what_is_served_was_answered_in_full_to_the_same_tenants_same_question(
    script, rounds, hot_bytes
):
    async def run():
        harness = Harness(script, hot_bytes)
        harness.writeback.start()
        for together in rounds:
            answers = await asyncio.gather(
                *(harness.ask(*step) for step in together), return_exceptions=True
            )
            for (tenant, question, _, _), answer in zip(together, answers, strict=True):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, ApiError | asyncio.CancelledError), repr(answer)
                elif answer is not None:
                    assert harness.upstreams.finished[answer.strip()] == (tenant, question)
        await harness.writeback.stop(5)
        for entry in harness.store.written.values():
            namespace_id = entry.partition.namespace_id
            record = unpack(entry.record, namespace_id=namespace_id, key=entry.key)
            tenant, _ = harness.upstreams.finished[text_of(record.body).strip()]
            assert Namespace(tenant, "n").id == namespace_id

    asyncio.run(run())
