"""Whatever tenants ask, and however upstreams fail: what is served was answered in full to them.

Histories are drawn, in each API for completions; the pipeline is the real one, with real tiers,
over an upstream that answers, stops short, breaks off or errs by its script, and a store that keeps
what it is given. What is streamed is what the upstream sent, byte by byte; what is replayed has the
events of the first stream in their order, and tells the answer that is kept.
"""

import asyncio
import json

import pytest
from faulty import FaultyStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spoiled_answers import APIS, ENDS, SpoiledAnswer

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
from cacheproxy.routes.dialects.sse import EventCutter, data_of
from cacheproxy.routes.dialects.text import text_of
from cacheproxy.routes.exchange import Control
from cacheproxy.server.completions import DIALECTS
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

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}


class ScriptedUpstreams:
    """As `Upstreams`, with the script's answers, which are all different."""

    def __init__(self, api, script):
        self.api = api
        self.script = list(script)
        self.sent = {}  # by text: to whom, the question, and the answer
        self.count = 0

    def first(self, model):
        return UpstreamSettings(base_url="http://127.0.0.1/v1")

    def passes_authorization(self, model):
        return False

    def broke_off(self, upstream, kind):
        pass

    async def post(self, model, path, body, client):
        await asyncio.sleep(0)
        end = self.script.pop() if self.script else "whole"
        if end == "refused":
            raise UpstreamFailed("refused", code="upstream_connect")
        self.count += 1
        asked = json.loads(body)
        to = client["tenant"], client["question"]
        question = f"{to[1]} Call {self.count} of {to[0]}"
        answer = SpoiledAnswer(APIS[self.api], asked, question, self.count, end)
        self.sent[f"You asked: {question}"] = (*to, answer)
        return answer

    def check_finished(self, text, tenant, question=None):
        """A text is of an answer in full to this tenant, and to this question."""
        *to, answer = self.sent[text]
        assert answer.is_whole
        assert to == [tenant, to[1] if question is None else question]

    def check_passed(self, data, tenant, question, form, *, in_full):
        """Data are those of one answer to this tenant's question, up to where it was cut off."""
        mine = [
            answer.all_bytes()
            for *to, answer in self.sent.values()
            if to == [tenant, question] and answer.is_stream == (form != "plain")
        ]
        assert any(one == data if in_full else one.startswith(data) for one in mine)


class Harness:
    def __init__(self, api, script, hot_bytes):
        metrics = Metrics()
        self.store = FaultyStore()
        self.dialect = BY_NAME[api]
        self.upstreams = ScriptedUpstreams(api, script)
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
            dialects=BY_NAME,
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

    async def ask(self, tenant, question, form, steps):
        """Ask, check the answer, and return the tier of a hit; leave after so many steps."""
        asking = asyncio.ensure_future(self.answer(tenant, question, form))
        if steps is not None:
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
        return await asking

    async def answer(self, tenant, question, form):
        fields = APIS[self.dialect.name].ask(question)
        if form == "stream with usage" and self.dialect.name in ("chat", "completions"):
            fields["stream_options"] = {"include_usage": True}
        sent = json.dumps({**fields, "stream": form != "plain"}).encode()
        request = self.dialect.parse(sent, max_temperature=1)
        assert request.bypass is None
        client = {"tenant": tenant, "question": question}
        answer = await self.route.serve(request, Namespace(tenant, "n"), Control(), client)
        if isinstance(answer, Passed):
            await self.check_passed(answer, tenant, question, form)
            return
        self.upstreams.check_finished(text_of(answer.record.body), tenant, question)
        self.check_replay(answer.record.body, form)

    async def check_passed(self, answer, tenant, question, form):
        data, in_full = b"", False
        try:
            with answer.reader:
                async for part in answer.reader.parts():
                    data += part
            in_full = form == "plain"  # a stream may end at an error
        finally:
            self.upstreams.check_passed(data, tenant, question, form, in_full=in_full)

    def check_replay(self, body, form):
        """A replay has the first stream's events in their order, and tells the kept answer."""
        if form == "plain":
            return
        events = EventCutter().cut(self.dialect.replay(body, with_usage=True))
        assembler = self.dialect.assembler()
        assert assembler.take_all(events) == len(events)
        told = json.loads(assembler.completion().body)
        assert without_none(told) == without_none(json.loads(body))
        *_, answer = self.upstreams.sent[text_of(body)]
        assert kinds(events) == kinds(EventCutter().cut(answer.whole_stream()))


def without_none(value):
    """Return JSON without members that are null: a replay may leave them out."""
    if isinstance(value, dict):
        return {name: without_none(one) for name, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list) else value


def kinds(events):
    """Return the types of events, each once, without those that only keep a connection alive."""
    told = [json.loads(data) for event in events if (data := data_of(event)) != b"[DONE]"]
    return list(dict.fromkeys(one.get("type") for one in told if one.get("type") != "ping"))


STEPS = st.tuples(
    st.sampled_from(["acme", "other"]),
    st.sampled_from(["Why?", "How?"]),
    st.sampled_from(["plain", "stream", "stream with usage"]),
    st.none() | st.integers(1, 40),
)


@pytest.mark.parametrize("api", APIS)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(ENDS), max_size=8),
    st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=1, max_size=5),
    st.sampled_from([0, 100_000]),
)
def test_what_is_served_was_answered_in_full_to_the_same_tenants_same_question(
    caplog, api, script, rounds, hot_bytes
):
    async def run():
        harness = Harness(api, script, hot_bytes)
        harness.writeback.start()
        for together in rounds:
            answers = await asyncio.gather(
                *(harness.ask(*step) for step in together), return_exceptions=True
            )
            for answer in answers:
                if not isinstance(answer, ApiError | asyncio.CancelledError | None):
                    raise answer
        await harness.writeback.stop(5)
        tenants = {Namespace(tenant, "n").id: tenant for tenant in ("acme", "other")}
        for entry in harness.store.written.values():
            namespace_id = entry.partition.namespace_id
            record = unpack(entry.record, namespace_id=namespace_id, key=entry.key)
            harness.upstreams.check_finished(text_of(record.body), tenants[namespace_id])

    asyncio.run(run())
    assert not caplog.records  # such as an exception that nobody expects


@pytest.mark.parametrize("hot_bytes", [0, 100_000])
@pytest.mark.parametrize("api", APIS)
def test_what_was_finished_while_the_store_was_asked_is_not_asked_for_again(
    monkeypatch, api, hot_bytes
):
    monkeypatch.setattr(FaultyStore, "lookups_at_once", 2)

    async def run():
        harness = Harness(api, [], hot_bytes)
        harness.store.stall()
        late = asyncio.ensure_future(harness.answer("acme", "Why?", "plain"))
        while not harness.store.calls:
            await asyncio.sleep(0)
        stalled, harness.store.stalled = harness.store.stalled, None
        await harness.answer("acme", "Why?", "plain")
        stalled.set()
        await late
        assert harness.upstreams.count == 1

    asyncio.run(run())
