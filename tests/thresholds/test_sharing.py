"""Evidence over restarts and between servers."""

import random

import pytest
from faulty import FaultyStore

from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.certified import CertifiedThresholds
from cacheproxy.thresholds.promise import Promise
from cacheproxy.thresholds.sharing import EvidenceSharing

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

    @property
    def standing(self):
        (account,) = self.thresholds.accounts()
        (standing,) = account.standings
        return standing


@pytest.fixture
def store():
    return FaultyStore()


async def test_a_restart_goes_on_from_what_was_kept_and_is_not_looser(store):
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
