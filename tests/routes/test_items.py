"""The decisions of a request's way, over real tiers, with a store that can be made to fail."""

import asyncio
import threading
from functools import partial

import numpy as np
import pytest
from faulty import FaultyStore
from tokenizers import Tokenizer as TokenizerBuilder
from tokenizers import models, normalizers, pre_tokenizers, processors

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import InferenceFailed, NotCached, Overloaded
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.engine import LocalEngine
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import Namespace
from cacheproxy.probes.static import StaticProbe
from cacheproxy.records import unpack
from cacheproxy.routes.exchange import Control, ModelInfo, Request
from cacheproxy.routes.items import EmbeddingPipeline
from cacheproxy.stores.protocol import Neighbour
from cacheproxy.stores.purges import Scope
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.controller import Verdict
from cacheproxy.thresholds.fixed import FixedThreshold
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack

WORDS = ["[CLS]", "[SEP]", "[UNK]", "poison", *"abcdefghijklmnopqrstuvwxyz"]
DIMENSIONS = 8
NAMESPACE = Namespace("default", "default")


def small_tokenizer() -> Tokenizer:
    """An uncased tokenizer of single-letter words."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    builder = TokenizerBuilder(models.WordLevel(vocabulary, unk_token="[UNK]"))
    builder.normalizer = normalizers.Lowercase()
    builder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    builder.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return Tokenizer(builder.to_str().encode(), max_tokens=16)


def encode(ids):
    """A "model": the direction of a text is the histogram of its ids."""
    if (ids == WORDS.index("poison")).any():
        raise RuntimeError("poisoned")
    vectors = np.zeros((len(ids), DIMENSIONS), np.float32)
    for row, text in zip(vectors, ids, strict=True):
        for token in text:
            row[token % DIMENSIONS] += 1 + token
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Harness:
    """A pipeline with its parts at hand."""

    def __init__(
        self,
        *,
        hot_bytes=1_000_000,
        threshold=None,
        controller=None,
        deadline_s=5.0,
        queue_entries=100,
        most_checks=10,
        max_wait_s=10.0,
    ):
        self.metrics = Metrics()
        self.store = FaultyStore()
        self.inferences = 0
        self.hold = None  # an event that inference waits for
        self.tokenizer = small_tokenizer()
        self.guard = guard = StoreGuard(self.store, deadline_s=deadline_s, metrics=self.metrics)
        self.writeback = WriteBack(self.store, max_entries=queue_entries, metrics=self.metrics)
        self.hot = HotTier(hot_bytes, self.store.purges)
        self.batcher = Batcher(
            self._encode,
            model="m",
            threads=1,
            queue=TextQueue(
                window_s=0.005, max_group_tokens=64, shared_group_tokens=64, timeout_s=60, workers=2
            ),
            max_wait_s=max_wait_s,
            metrics=self.metrics,
        )
        self.spare_work = SpareWork(self.batcher.has_spare, most=most_checks, metrics=self.metrics)
        reader = RecordReader(partial(unpack, dimensions=DIMENSIONS), self.metrics)
        self.pipeline = EmbeddingPipeline(
            ModelInfo("m", (), "f" * 64, DIMENSIONS),
            tokenizer=self.tokenizer,
            hot=self.hot,
            exact=ExactTier(guard, self.writeback, reader),
            semantic=SemanticTier(
                guard,
                StaticProbe(np.eye(len(WORDS), dtype=np.float16)),
                controller
                or FixedThreshold(threshold, min_similarity=0.95, model="m", metrics=self.metrics),
                fingerprint="f" * 64,
                reader=reader,
                min_tokens=4,
                model="m",
                metrics=self.metrics,
            ),
            engine=LocalEngine(self.batcher, self.tokenizer),
            writeback=self.writeback,
            purges=self.store.purges,
            spare_work=self.spare_work,
            tokenizing=JobThread("tokenize"),
            lifetimes=Lifetimes(3_600, by_namespace_id={}, jitter=0.1),
            metrics=self.metrics,
        )

    def _encode(self, ids):
        self.inferences += len(ids)
        if self.hold is not None:
            self.hold.wait(10)
        return encode(ids)

    async def embed(self, *inputs, **control):
        return await self.pipeline.embed(Request(NAMESPACE, list(inputs), Control(**control)))

    async def outcomes(self, *inputs, **control):
        return [served.outcome for served in (await self.embed(*inputs, **control)).served]

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"cacheproxy_{name}", labels)

    async def settled(self):
        """Wait until everything that was queued has been written."""
        await asyncio.wait_for(self.writeback._idle.wait(), 10)


@pytest.fixture
async def start():
    started = []

    def make(**settings):
        harness = Harness(**settings)
        harness.writeback.start()
        harness.batcher.start()
        harness.spare_work.start()
        started.append(harness)
        return harness

    yield make
    for harness in started:
        await harness.spare_work.stop()
        await asyncio.to_thread(harness.batcher.stop)
        await harness.writeback.stop(timeout_s=0)
        await harness.guard.close()


async def test_each_text_of_a_batch_takes_its_own_way_and_the_order_is_kept(start):
    harness = start()
    await harness.embed("a b", "c d")

    answer = await harness.embed("x y", "a b", "z", "c d")

    assert [served.outcome for served in answer.served] == ["miss", "hot", "miss", "hot"]
    for served, text in zip(answer.served, ["x y", "a b", "z", "c d"], strict=True):
        (ids,) = harness.tokenizer.encode([text])
        assert served.record.vector == encode(np.array([ids])).astype("<f4").tobytes()


async def test_texts_of_equal_ids_share_an_entry_in_text_and_in_ids(start):
    harness = start()
    await harness.embed("a b")

    assert await harness.outcomes("A  b", "A  B ", [4, 5], [0, 4, 5, 1]) == ["hot"] * 4
    assert harness.inferences == 1


async def test_without_the_hot_tier_the_exact_tier_answers_before_and_after_the_write(start):
    harness = start(hot_bytes=0)
    harness.store.stall()
    inferring = asyncio.create_task(harness.embed("a b", no_cache=True))
    await inferring
    assert await harness.outcomes("a b") == ["exact"]

    harness.store.stalled.set()
    await harness.settled()
    assert await harness.outcomes("a b") == ["exact"]
    assert harness.inferences == 1


async def test_a_store_that_always_fails_costs_no_request(start):
    harness = start(hot_bytes=0)
    harness.store.failures = 10**9

    assert await harness.outcomes("a b", "c d") == ["miss", "miss"]
    assert harness.value("store_errors_total", kind="connection") >= 1


async def test_a_store_that_stalls_costs_its_deadline_and_no_request(start):
    harness = start(hot_bytes=0, deadline_s=0.01)
    harness.store.stall()

    answer = await asyncio.wait_for(harness.embed("a b"), 10)

    assert answer.served[0].outcome == "miss"
    assert harness.value("store_errors_total", kind="timeout") == 1


async def test_what_is_known_by_its_key_and_gone_is_asked_of_the_store_once(start):
    harness = start(hot_bytes=0, deadline_s=0.01)
    await harness.embed("a b")
    await harness.settled()
    ((key, _),) = harness.store.written.items()
    harness.store.stall()
    asked = harness.store.calls

    known = await harness.pipeline.find_known(NAMESPACE.id, key)
    request = Request(NAMESPACE, ["a b"], Control())
    answer = await asyncio.wait_for(harness.pipeline.embed(request, known), 10)

    assert known.served is None
    assert answer.served[0].outcome == "miss"
    assert answer.stages_s["exact"] == known.stages_s["exact"]
    assert harness.store.calls == asked + 1
    assert harness.value("store_errors_total", kind="timeout") == 1


async def damaged(harness, damage):
    await harness.embed("a b")
    await harness.settled()
    ((key, entry),) = harness.store.written.items()
    harness.store.written[key] = entry._replace(record=damage(entry.record))


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record[:-1],
        lambda record: record[:60] + bytes([record[60] ^ 1]) + record[61:],
        lambda record: b"foreign",
        lambda record: b"",
    ],
)
async def test_a_damaged_record_is_a_miss_and_is_overwritten(start, damage):
    harness = start(hot_bytes=0)
    await damaged(harness, damage)

    assert await harness.outcomes("a b") == ["miss"]
    await harness.settled()
    assert await harness.outcomes("a b") == ["exact"]
    assert harness.value("record_errors_total") == 1


async def test_another_keys_record_is_never_served(start):
    harness = start(hot_bytes=0)
    await harness.embed("a b", "c d")
    await harness.settled()
    (one, first), (two, second) = harness.store.written.items()
    harness.store.written.update({one: second, two: first})

    assert await harness.outcomes("a b", "c d") == ["miss", "miss"]


async def test_a_neighbour_of_another_namespace_is_never_served(start):
    harness = start(threshold=0.5)
    other = Request(Namespace("other", "default"), ["a b c d"], Control())
    await harness.pipeline.embed(other)
    await harness.settled()
    ((key, entry),) = harness.store.written.items()

    async def nearest(partition, probes):
        return [Neighbour(key, entry.record, 0.99)] * len(probes)

    harness.store.nearest = nearest

    assert await harness.outcomes("a b c e") == ["miss"]
    assert harness.value("record_errors_total") == 1


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


async def test_a_text_that_cannot_be_inferred_fails_its_request_and_not_its_mates(start):
    harness = start()
    with pytest.raises(InferenceFailed):
        await harness.embed("a b", "poison", "c d")

    assert await harness.outcomes("a b", "c d") == ["hot", "hot"]
    with pytest.raises(InferenceFailed):
        await harness.embed("poison")


async def test_no_store_joins_no_flight_and_leaves_nothing(start):
    harness = start()

    assert await harness.outcomes("a b", no_store=True) == ["miss"]
    await harness.settled()
    assert harness.store.written == {}
    assert await harness.outcomes("a b", only_if_cached=False) == ["miss"]


async def test_only_if_cached_raises_rather_than_infer(start):
    harness = start()
    await harness.embed("a b")

    assert await harness.outcomes("a b", only_if_cached=True) == ["hot"]
    with pytest.raises(NotCached):
        await harness.embed("a b", "c d", only_if_cached=True)
    assert harness.inferences == 1


async def test_a_client_that_leaves_takes_nothing_from_one_that_stays(start):
    harness = start()
    leaver = asyncio.create_task(harness.embed("a b"))
    stayer = asyncio.create_task(harness.embed("a b"))
    while not harness.pipeline._flights._flights:
        await asyncio.sleep(0)
    leaver.cancel()

    assert (await stayer).served[0].outcome in ("miss", "hot")
    assert harness.inferences == 1


async def test_what_is_stored_carries_its_expiry_tags_and_partition(start):
    harness = start(threshold=0.9)
    await harness.embed("a b c d", ttl_s=60.0, tags=("docs",))
    await harness.settled()
    (entry,) = harness.store.written.values()

    assert entry.tags == ("docs",)
    assert entry.partition.namespace_id == NAMESPACE.id
    assert entry.probe is not None
    record = (await harness.embed("a b c d")).served[0].record
    assert entry.expires_at == record.expires_at == record.created_at + 60


async def test_only_what_is_on_its_way_into_the_store_is_said_to_be_stored(start):
    harness = start(queue_entries=1)
    harness.store.stall()
    asked = [harness.embed("a b"), harness.embed("c d"), harness.embed("c d")]
    answers = await asyncio.gather(*asked)

    assert [answer.served[0].is_stored for answer in answers] == [True, False, False]
    (dropped,) = (await harness.embed("e f", no_store=True)).served
    assert not dropped.is_stored
    harness.store.stalled.set()


@pytest.mark.parametrize("hot_bytes", [0, 1_000_000])
async def test_entries_of_one_request_expire_apart_and_the_answers_say_when(start, hot_bytes):
    harness = start(hot_bytes=hot_bytes)
    texts = [f"{a} {b}" for a in "abcde" for b in "vwxyz"]
    served = (await harness.embed(*texts)).served
    await harness.settled()

    lives_s = [one.record.expires_at - one.record.created_at for one in served]
    assert len({round(life_s, 3) for life_s in lives_s}) == 25
    assert all(3_240 <= life_s <= 3_600.001 for life_s in lives_s)
    for one in served:
        assert harness.store.written[one.record.key].expires_at == one.record.expires_at


async def test_a_life_that_the_client_asked_for_is_kept_to_the_second(start):
    harness = start()
    for one in (await harness.embed("a b", "c d", "e f", ttl_s=60.0)).served:
        assert one.record.expires_at - one.record.created_at == pytest.approx(60, abs=1e-3)


# Purges that this process hears of


def key_of(harness, text):
    return harness.pipeline.key_of_text(NAMESPACE.id, text)


def purged(harness):
    harness.store.purges.purged(Scope(NAMESPACE.id), harness.store.purges.generation + 1)


async def test_what_is_purged_is_not_found_in_the_hot_tier_by_key_or_by_text(start):
    harness = start()
    await harness.embed("a b")
    await harness.settled()
    harness.store.written.clear()
    purged(harness)

    assert await harness.outcomes("a b", [4, 5]) == ["miss", "miss"]
    assert harness.inferences == 2
    assert await harness.outcomes("a b") == ["hot"]


async def test_what_was_read_before_a_purge_does_not_stay_in_the_hot_tier(start):
    harness = start()
    await harness.embed("a b")
    await harness.settled()
    purged(harness)
    harness.store.stall()
    before = harness.store.calls
    reading = asyncio.create_task(harness.embed("a b"))
    while harness.store.calls == before:
        await asyncio.sleep(0)
    purged(harness)
    harness.store.stalled.set()

    assert (await reading).served[0].outcome == "exact"
    assert harness.hot.get(key_of(harness, "a b")) is None


async def test_what_was_begun_before_a_purge_is_not_joined_after_it_nor_kept(start):
    harness = start()
    began = harness.store.purges.generation
    release = threading.Event()
    harness.hold = release
    before = asyncio.create_task(harness.embed("a b"))
    while not harness.inferences:
        await asyncio.sleep(0.001)
    purged(harness)
    after = asyncio.create_task(harness.embed("a b"))
    while not harness.pipeline._flights.get(key_of(harness, "a b")).since:
        await asyncio.sleep(0.001)
    release.set()

    assert [(await each).served[0].outcome for each in (before, after)] == ["miss", "miss"]
    assert harness.inferences == 2
    await harness.settled()
    (entry,) = harness.store.written.values()
    assert entry.generation == harness.store.purges.generation > began
    assert await harness.outcomes("a b") == ["hot"]


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


async def test_an_entry_carries_what_was_heard_when_its_inference_began(start):
    harness = start()
    harness.hold = threading.Event()
    purged(harness)
    began = harness.store.purges.generation
    asking = asyncio.create_task(harness.embed("a b"))
    while not harness.inferences:
        await asyncio.sleep(0.001)
    harness.store.purges.purged(Scope(NAMESPACE.id, tag="docs"), began + 1)
    harness.hold.set()
    await asking
    await harness.settled()

    (entry,) = harness.store.written.values()
    assert entry.generation == began
    assert harness.hot.get(key_of(harness, "a b")) is None


async def overload(harness) -> list[asyncio.Task]:
    """Ask for texts that wait, until one is refused; return those that were accepted."""
    harness.hold = threading.Event()
    accepted = []
    for a in WORDS[4:]:
        for b in WORDS[4:]:
            task = asyncio.create_task(harness.outcomes(f"{a} {b}"))
            await asyncio.sleep(0.01)
            if task.done():
                with pytest.raises(Overloaded):
                    task.result()
                return accepted
            accepted.append(task)
    raise AssertionError("nothing was refused")


async def test_while_overloaded_new_texts_are_refused_before_they_cost_anything(start):
    harness = start(max_wait_s=0.005)
    accepted = await overload(harness)
    calls, shed = harness.store.calls, harness.value("shed_total", reason="queue")

    with pytest.raises(Overloaded) as refused:
        await harness.embed("never asked for")

    assert refused.value.retry_after_s >= 1
    assert harness.store.calls == calls
    assert harness.value("shed_total", reason="queue") == shed + 1
    harness.hold.set()
    assert await asyncio.gather(*accepted) == [["miss"]] * len(accepted)


async def test_while_overloaded_hot_hits_are_served(start):
    harness = start(max_wait_s=0.005)
    await harness.embed("a b c d")
    accepted = await overload(harness)

    assert await harness.outcomes("a b c d") == ["hot"]
    harness.hold.set()
    await asyncio.gather(*accepted)


async def test_while_overloaded_the_exact_tier_is_asked_where_it_often_has_the_answer(start):
    harness = start(max_wait_s=0.005, hot_bytes=0)
    await harness.embed("a b c d")
    await harness.settled()
    for _ in range(100):
        assert await harness.outcomes("a b c d") == ["exact"]
    accepted = await overload(harness)

    assert await harness.outcomes("a b c d") == ["exact"]
    with pytest.raises(Overloaded):
        await harness.embed("never asked for")
    harness.hold.set()
    await asyncio.gather(*accepted)


async def test_who_wants_cached_answers_only_is_not_refused_for_an_overload(start):
    harness = start(max_wait_s=0.005)
    accepted = await overload(harness)

    with pytest.raises(NotCached):
        await harness.embed("never asked for", only_if_cached=True)
    harness.hold.set()
    await asyncio.gather(*accepted)


async def test_an_overload_is_over_when_the_queue_has_run_empty(start):
    harness = start(max_wait_s=0.005)
    accepted = await overload(harness)
    harness.hold.set()
    await asyncio.gather(*accepted)
    deadline = asyncio.get_running_loop().time() + 10
    while harness.batcher.is_overloaded:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)

    assert await harness.outcomes("x y z") == ["miss"]
