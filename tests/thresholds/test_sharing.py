"""Evidence over restarts and between servers."""

import asyncio
import random

import pytest
from faulty import FaultyStore
from relay import Relay

from cacheproxy.errors import StoreError
from cacheproxy.stores.redis.store import RedisStore
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.certified import CertifiedThresholds
from cacheproxy.thresholds.promise import Promise
from cacheproxy.thresholds.sharing import EvidenceSharing, SharedState

PROMISE = Promise(max_error=0.05, min_similarities=(0.95,))
NAMESPACE = "n" * 32


class Server:
    """The thresholds of one process on a store."""

    def __init__(self, store, fingerprint="model:probe"):
        self.thresholds = CertifiedThresholds(
            PROMISE,
            min_similarity=0.95,
            saves_only=False,
            model="m",
            metrics=Metrics(),
            draw=random.Random(2).random,  # noqa: S311
        )
        self.sharing = EvidenceSharing(store, self.thresholds, fingerprint=fingerprint)

    def learn(self, count, similarity=0.99):
        for _ in range(count):
            verdict = self.thresholds.judge(NAMESPACE, 0.97, None)
            if verdict.check or not verdict.is_hit:
                self.thresholds.observe(NAMESPACE, 0.97, similarity)

    def refute(self):
        """Observe wrong hits until the evidence is thrown away."""
        for _ in range(100):
            self.thresholds.observe(NAMESPACE, 0.97, 0.1)
            (account,) = self.thresholds.accounts()
            if account.alarms["refuted"]:
                return
        pytest.fail("the evidence was not refuted")

    @property
    def standing(self):
        (account,) = self.thresholds.accounts()
        (standing,) = account.standings
        return standing


async def labels_kept_in(store, **more):
    """Return how many labels a server that starts on the store finds there."""
    reader = Server(store, **more)
    reader.thresholds.judge(NAMESPACE, 0.97, None)
    await reader.sharing.share()
    return reader.standing.labels


@pytest.fixture
def store():
    return FaultyStore()


async def test_a_restart_continues_from_the_stored_evidence_and_is_not_looser(store):
    before = Server(store)
    before.learn(200)
    await before.sharing.share()
    after = Server(store)
    after.learn(1)
    assert after.standing.threshold is None
    await after.sharing.share(new_ones_only=True)

    assert before.standing.threshold is not None
    assert after.standing.threshold >= before.standing.threshold


async def test_servers_open_together_on_what_none_has_learnt_alone(store):
    one, other = Server(store), Server(store)
    for _ in range(3):
        for server in (one, other):
            server.learn(15)
            await server.sharing.share()
    assert one.standing.threshold is None
    for server in (one, other, one):
        server.learn(20, 0.99)
        await server.sharing.share()

    assert one.standing.labels > 60
    assert one.standing.threshold is not None


async def test_what_one_server_refutes_counts_for_no_other(store):
    one, other = Server(store), Server(store)
    one.learn(300)
    await one.sharing.share()
    other.learn(1)
    await other.sharing.share()
    assert other.standing.threshold is not None

    one.learn(400, similarity=0.1)
    await one.sharing.share()
    await other.sharing.share()
    other.learn(1)
    await other.sharing.share()
    assert one.standing.threshold is None
    assert other.standing.threshold is None


async def test_another_model_or_probe_starts_without_evidence(store):
    before = Server(store)
    before.learn(200)
    await before.sharing.share()
    after = Server(store, fingerprint="model:another probe")
    after.learn(1)
    await after.sharing.share()

    assert after.standing.threshold is None
    assert after.standing.labels <= 1


async def test_news_that_cannot_be_kept_wait_and_are_counted_once(store):
    server = Server(store)
    server.learn(30)
    store.failures = 1
    await server.sharing.share()
    assert store.states == {}
    server.learn(30)
    await server.sharing.share()
    after = Server(store)
    after.learn(0)
    after.thresholds.judge(NAMESPACE, 0.97, None)
    await after.sharing.share()

    assert after.standing.labels == pytest.approx(60, rel=0.05)


async def test_a_damaged_state_is_replaced(store):
    server = Server(store)
    server.learn(100)
    await server.sharing.share()
    (name,) = store.states
    store.states[name] = b"garbage"
    server.learn(100)
    await server.sharing.share()

    assert store.states[name] != b"garbage"


async def test_evidence_refuted_while_it_is_being_shared_stays_refuted(store):
    server = Server(store)
    server.learn(300)
    await server.sharing.share()
    assert server.standing.threshold is not None
    server.learn(50)

    store.during_swap = server.refute
    await server.sharing.share()
    store.during_swap = None
    assert server.standing.threshold is None
    server.learn(2)
    await server.sharing.share()
    server.learn(2)

    assert server.standing.threshold is None
    after = Server(store)
    after.learn(1)
    await after.sharing.share()
    assert after.standing.threshold is None


async def test_news_refuted_while_it_could_not_be_shared_is_dropped(store):
    server = Server(store)
    server.learn(300)

    def refute_and_fail():
        server.refute()
        store.during_swap = None
        raise StoreError("broken on purpose")

    store.during_swap = refute_and_fail
    await server.sharing.share()
    await server.sharing.share()
    after = Server(store)
    after.learn(1)
    await after.sharing.share()

    assert after.standing.threshold is None


async def test_evidence_whose_confirmation_was_lost_is_counted_once(store):
    server = Server(store)
    server.learn(30)
    store.lost_replies = 1
    await server.sharing.share()
    assert store.states
    server.learn(30)
    await server.sharing.share()

    assert server.standing.labels == pytest.approx(60, rel=0.05)
    assert await labels_kept_in(store) == pytest.approx(60, rel=0.05)


async def test_evidence_is_counted_once_where_its_write_failed_and_another_server_wrote(store):
    server, other = Server(store), Server(store)
    server.learn(30)
    store.failures = 1
    await server.sharing.share()
    other.learn(30)
    await other.sharing.share()
    await server.sharing.share()

    assert await labels_kept_in(store) == pytest.approx(60, rel=0.05)


async def test_evidence_is_counted_once_where_its_reply_was_lost_and_another_server_wrote(store):
    server, other = Server(store), Server(store)
    server.learn(30)
    store.lost_replies = 1
    await server.sharing.share()
    other.learn(30)
    await other.sharing.share()
    server.learn(30)
    await server.sharing.share()

    assert await labels_kept_in(store) == pytest.approx(90, rel=0.05)


async def test_evidence_is_counted_once_where_a_write_is_applied_after_it_was_tried_again(store):
    server = Server(store)
    server.learn(30)
    swap, late = store.swap_state, []

    async def swap_late(*args):
        if not late:
            late.append(args)
            raise StoreError("no reply in time")
        if len(late) == 1:
            late.append(await swap(*late[0]))
        return await swap(*args)

    store.swap_state = swap_late
    await server.sharing.share()
    server.learn(30)
    await server.sharing.share()

    assert late[1]
    assert await labels_kept_in(store) == pytest.approx(60, rel=0.05)


def test_an_offer_may_be_stored_where_so_many_servers_wrote_that_the_state_names_it_no_more():
    state = SharedState(b"evidence")
    for server in range(70):
        state = SharedState.unpack(
            state.with_offer(b"evidence", bytes([server] * 8), server).pack()
        )

    assert state.evidence == b"evidence"
    assert len(state.offers) == 64
    assert state.may_hold(bytes([69] * 8), 69)
    assert not state.may_hold(bytes([69] * 8), 70)
    assert state.may_hold(bytes([0] * 8), 0)


async def test_evidence_is_counted_once_where_redis_applied_it_and_its_reply_was_lost(redis_url):
    async with Relay(int(redis_url.rpartition(":")[2].partition("/")[0])) as relay:
        store = RedisStore(f"redis://127.0.0.1:{relay.port}")
        await store.open()
        server = Server(store, fingerprint="lost reply")
        server.learn(30)
        relay.lose_reply_to = b"EXEC"
        await server.sharing.share()
        assert relay.lose_reply_to is None
        server.learn(30)
        async with asyncio.timeout(20):
            while server.thresholds.with_news():
                await server.sharing.share()
        kept = await labels_kept_in(store, fingerprint="lost reply")
        await store.close()

    assert kept == pytest.approx(60, rel=0.05)


async def test_evidence_is_counted_once_where_sharing_is_stopped_during_a_write(store):
    server = Server(store)
    server.learn(30)
    swap = store.swap_state

    async def swap_and_be_cancelled(*args):
        await swap(*args)
        raise asyncio.CancelledError

    store.swap_state = swap_and_be_cancelled
    sharing = asyncio.create_task(server.sharing.share())
    await asyncio.wait({sharing})
    store.swap_state = swap
    await server.sharing.stop()

    assert sharing.cancelled()
    assert await labels_kept_in(store) == pytest.approx(30, rel=0.05)
