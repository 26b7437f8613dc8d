"""The semantic tier of an items request: what is looked up, served, checked and learned."""

import asyncio
import threading

import pytest
from items_harness import (
    key_of,
    purged,
)

from cacheproxy.errors import Overloaded
from cacheproxy.keys import Namespace
from cacheproxy.routes.exchange import Control, ItemsRequest
from cacheproxy.stores.protocol import Neighbour
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.controller import Verdict
from cacheproxy.thresholds.fixed import FixedThreshold


async def test_a_neighbour_of_another_namespace_is_never_served(start):
    harness = start(threshold=0.5)
    other = ItemsRequest(Namespace("other", "default"), ["a b c d"], Control())
    await harness.route.serve(other)
    await harness.settled()
    ((key, entry),) = harness.store.written.items()

    async def nearest(partition, probes):
        return [Neighbour(key, entry.record, 0.99)] * len(probes)

    harness.store.nearest = nearest

    assert await harness.outcomes("a b c e") == ["miss"]
    assert harness.value("undecodable_records_total") == 1


@pytest.mark.parametrize(
    ("threshold", "score", "expected"),
    [(None, 1.0, "miss"), (0.9, 0.89, "miss"), (0.9, 0.9, "semantic")],
)
async def test_a_neighbour_is_served_from_the_threshold_on_and_never_while_closed(
    start, threshold, score, expected
):
    harness = start(threshold=threshold)
    await harness.embed("a b c d")
    await harness.settled()
    ((key, entry),) = harness.store.written.items()

    async def nearest(partition, probes):
        return [Neighbour(key, entry.record, score)] * len(probes)

    harness.store.nearest = nearest

    assert await harness.outcomes("a b c e") == [expected]
    assert harness.inferences == (1 if expected == "semantic" else 2)


async def test_a_miss_with_a_neighbour_teaches_whether_it_would_have_been_right(start):
    harness = start(threshold=0.99)
    await harness.embed("a b c d")
    await harness.settled()
    ((key, entry),) = harness.store.written.items()

    async def nearest(partition, probes):
        return [Neighbour(key, entry.record, 0.5)] * len(probes)

    harness.store.nearest = nearest
    await harness.embed("a b c d d d d d", "x y z x")

    right = harness.value("semantic_shadow_labels_total", model="m", result="right")
    wrong = harness.value("semantic_shadow_labels_total", model="m", result="wrong")
    assert right + wrong == 2


class ScriptedController(FixedThreshold):
    """Calls everything a hit, and wants the checks that it is told to want."""

    def __init__(self, *checks):
        super().__init__(0.5, min_similarity=0.95, model="m", metrics=Metrics())
        self.checks = list(checks)
        self.observed = []

    def judge(self, namespace_id, score, min_similarity):
        return Verdict(True, self.checks.pop(0))

    def observe(self, namespace_id, score, similarity):
        self.observed.append(score)


async def with_a_neighbour(harness):
    """Store one entry, and have every later lookup by probe find it."""
    await harness.embed("a b c d")
    await harness.settled()
    ((key, entry),) = harness.store.written.items()

    async def nearest(partition, probes):
        return [Neighbour(key, entry.record, 0.9)] * len(probes)

    harness.store.nearest = nearest


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class ClosedController(ScriptedController):
    """Serves nothing, and learns."""

    def __init__(self):
        super().__init__()
        self.is_asked = 0

    def is_active(self, namespace_id, texts, *, is_idle):
        return True

    def is_open(self, namespace_id):
        return False

    def judge(self, namespace_id, score, min_similarity):
        self.is_asked += 1
        return Verdict(False)


async def test_while_nothing_may_be_served_inference_does_not_wait_for_the_lookup(start):
    controller = ClosedController()
    harness = start(controller=controller)
    await with_a_neighbour(harness)
    nearest, may_answer = harness.store.nearest, asyncio.Event()

    async def slow(partition, probes):
        await may_answer.wait()
        return await nearest(partition, probes)

    harness.store.nearest = slow

    assert await harness.outcomes("a b c e") == ["miss"]
    assert controller.observed == []
    may_answer.set()
    await until(lambda: controller.observed == [0.9])
    assert controller.is_asked == 1


async def test_what_is_looked_up_beside_inference_is_indexed_all_the_same(start):
    harness = start(controller=ClosedController())
    probe, may_probe = harness.route._lookup._semantic._probe, asyncio.Event()

    class SlowProbe:
        name = "slow"

        async def encode(self, texts):
            await may_probe.wait()
            return await probe.encode(texts)

    harness.route._lookup._semantic._probe = SlowProbe()
    assert await harness.outcomes("a b c e") == ["miss"]
    may_probe.set()

    def is_indexed():
        return any(entry.probe is not None for entry in harness.store.written.values())

    await until(is_indexed)


async def test_what_a_request_does_not_wait_for_is_none_of_its_stages(start):
    harness = start(controller=ClosedController())
    await with_a_neighbour(harness)
    infer = harness.route._inference.infer

    async def late(items, *arguments):
        await items[0].looking
        return await infer(items, *arguments)

    harness.route._inference.infer = late
    answer = await harness.embed(*(f"a b c {letter}" for letter in "efghijklm"))

    assert [*answer.stages_s] == ["tokenize", "exact", "inference"]


async def test_while_the_tier_is_closed_a_lone_text_is_looked_up_behind_its_answer(start):
    controller = ClosedController()
    harness = start(controller=controller)
    await with_a_neighbour(harness)
    infer = harness.route._inference.infer

    async def late(items, *arguments):
        await asyncio.sleep(0.05)
        assert not items[0].looking.done()
        return await infer(items, *arguments)

    harness.route._inference.infer = late
    assert await harness.outcomes("a b c e") == ["miss"]
    await until(lambda: controller.observed == [0.9])


async def test_a_text_whose_client_left_is_looked_up_for_whoever_stays(start):
    controller = ClosedController()
    harness = start(controller=controller)
    await with_a_neighbour(harness)
    harness.hold = threading.Event()
    leaving, staying = (asyncio.create_task(harness.embed("a b c e")) for _ in range(2))
    await until(lambda: harness.inferences == 2)
    leaving.cancel()
    await asyncio.wait([leaving])
    harness.hold.set()

    assert (await staying).served[0].outcome == "miss"
    await until(lambda: controller.observed == [0.9])


async def test_what_opens_during_a_lookup_beside_inference_is_not_taken_for_a_hit(start):
    controller = ClosedController()
    harness = start(controller=controller)
    await with_a_neighbour(harness)
    controller.judge = lambda *_: Verdict(True, True)

    assert await harness.outcomes("a b c e") == ["miss"]
    await until(lambda: controller.observed == [0.9])
    assert harness.inferences == 2


async def test_a_hit_that_is_checked_teaches_and_gets_an_entry_of_its_own(start):
    controller = ScriptedController(True)
    harness = start(controller=controller)
    await with_a_neighbour(harness)

    (hit,) = (await harness.embed("a b c e")).served
    assert hit.outcome == "semantic"
    await until(lambda: controller.observed == [0.9])
    (own,) = (await harness.embed("a b c e")).served
    assert own.outcome == "hot"
    assert own.record.vector != hit.record.vector
    assert harness.inferences == 2


async def test_a_text_that_hits_a_second_time_is_checked_whatever_the_draw(start):
    controller = ScriptedController(False, False)
    harness = start(controller=controller)
    await with_a_neighbour(harness)

    assert await harness.outcomes("a b c e") == ["semantic"]
    assert controller.observed == []
    assert await harness.outcomes("a b c e") == ["semantic"]
    await until(lambda: controller.observed == [0.9])
    assert await harness.outcomes("a b c e") == ["hot"]


async def test_where_there_is_no_room_for_a_check_the_text_is_inferred_at_once(start):
    controller = ScriptedController(True)
    harness = start(controller=controller, most_checks=0)
    await with_a_neighbour(harness)

    assert await harness.outcomes("a b c e") == ["miss"]
    assert controller.observed == [0.9]


async def test_what_was_to_be_checked_before_a_purge_makes_no_entry_after_it(start):
    harness = start(threshold=0.5)
    await harness.embed("a b c d")
    await harness.settled()
    ((key, entry),) = harness.store.written.items()

    async def nearest(partition, probes):
        return [Neighbour(key, entry.record, 0.9)] * len(probes)

    harness.store.nearest = nearest
    checks = []
    harness.spare_work.put = checks.append
    asked = ["a b c e", "a b c f"]
    for _ in range(2):  # a text that hits a second time is checked
        assert await harness.outcomes(*asked) == ["semantic", "semantic"]
    before, after = checks
    assert (await before()).any()
    purged(harness)

    assert after() is None


async def test_a_busy_probe_fails_no_request(start):
    """An upstream's texts are probed by the local model, whose overload must not fail them."""
    harness = start(controller=ScriptedController(True))

    class BusyProbe:
        name = "busy"

        async def encode(self, texts):
            raise Overloaded("the queue is full")

    harness.route._lookup._semantic._probe = BusyProbe()

    assert await harness.outcomes("a b c d") == ["miss"]


async def test_a_text_that_the_probe_does_not_see_to_its_end_stays_out_of_the_semantic_tier(start):
    controller = ScriptedController(False)
    harness = start(controller=controller)
    await with_a_neighbour(harness)
    harness.route._engine.probe_sees_all = lambda ids: len(ids) < 7

    assert await harness.outcomes("a b c e") == ["semantic"]
    assert await harness.outcomes("a b c e f g h") == ["miss"]
    await harness.settled()
    (long,) = (
        e for e in harness.store.written.values() if e.key == key_of(harness, "a b c e f g h")
    )
    assert long.probe is None


async def test_a_request_that_joins_a_background_check_and_leaves_does_not_cancel_it(start):
    controller = ScriptedController(True)
    harness = start(controller=controller)
    await with_a_neighbour(harness)
    harness.hold = threading.Event()

    assert await harness.outcomes("a b c e") == ["semantic"]
    await until(lambda: len(harness.spare_work) and harness.route._inference._flights)
    joining = asyncio.create_task(harness.embed("a b c e", semantic=False))
    await until(lambda: harness.joined(key_of(harness, "a b c e")))
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    harness.hold.set()

    await until(lambda: controller.observed == [0.9])
