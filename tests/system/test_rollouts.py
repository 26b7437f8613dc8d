"""A new model beside the old one: a canary for a share of callers, and a server that warms up."""

import asyncio
import itertools
import signal
import time

import httpx
import pytest
from balancer import Balancer
from server_process import Server
from upstream import Upstream

LARGE, SMALL = "all-MiniLM-L6-v2", "paraphrase-MiniLM-L3-v2"
NAMESPACES = [f"customer {number}" for number in range(40)]
TEXTS = [
    f"how do I {verb} my {noun}, please"
    for verb in ("reset", "change", "print")
    for noun in ("password", "address", "invoice")
]


class Rollout:
    """A server with two models and an upstream with two more, of which one each is a canary."""

    def __init__(self, home, folder, upstream: Upstream):
        self.upstream, self.file = upstream, folder / "cacheproxy.toml"
        self.file.write_text(self.settings(0))
        self.server = Server(
            *(home, "memory://", "--drain-s", "0", "--model", LARGE, "--model", SMALL),
            *("--admin-port", "0", "--config", str(self.file)),
        )

    def settings(self, percent: float, canary: str = SMALL) -> str:
        return (
            f'[upstreams.main]\nbase_url = "{self.upstream.url}"\nmodels = ["m", "m2"]\n'
            f'[canary."{LARGE}"]\nmodel = "{canary}"\npercent = {percent}\n'
            f'[canary.m]\nmodel = "m2"\npercent = {percent}\n[chat]\njudge = "none"\n'
        )

    def reload(self, *given) -> httpx.Response:
        self.file.write_text(self.settings(*given))
        return self.server.admin.post("/admin/reload")

    def embed(self, namespace: str, text: str = "the same text for all", **headers) -> str:
        """Return the name of the model that answered."""
        given = {"x-cacheproxy-namespace": namespace, **headers}
        body = {"model": LARGE, "input": text}
        answer = self.server.http.post("/v1/embeddings", json=body, headers=given)
        assert answer.status_code == 200, answer.text
        vector = answer.json()["data"][0]["embedding"]
        assert len(vector) == 384
        return answer.json()["model"]

    def with_canary(self) -> set[str]:
        """Return the namespaces that get the canary; asked often, so that tiers answer, too."""
        chosen = [{one for one in NAMESPACES if self.embed(one) == SMALL} for _ in range(3)]
        assert chosen[0] == chosen[1] == chosen[2]
        return chosen[0]

    def requests(self, variant: str, model: str = LARGE) -> float:
        return self.server.metric("variant_requests_total", variant=variant, model=model)


@pytest.fixture(scope="module")
def rollout(small_model_home, tmp_path_factory):
    upstream = Upstream()
    rollout = Rollout(small_model_home, tmp_path_factory.mktemp("rollout"), upstream)
    yield rollout
    assert rollout.server.stop() == 0, rollout.server.log
    upstream.stop()


def test_a_share_of_namespaces_gets_the_canary_and_reloads_change_it_at_once(rollout):
    assert rollout.with_canary() == set()
    done = rollout.reload(30)
    assert set(done.json()["changed"]) == {f"canary.{LARGE}", "canary.m"}
    some = rollout.with_canary()
    assert 4 <= len(some) <= 22
    rollout.reload(60)
    more = rollout.with_canary()
    assert some < more < set(NAMESPACES)

    rollout.reload(0)
    assert rollout.with_canary() == set()


def test_a_request_chooses_its_variant_and_each_is_counted(rollout):
    rollout.reload(0)
    before = {one: rollout.requests(one) for one in ("canary", "stable")}
    hits = rollout.server.metric("lookups_total", model=SMALL, result="hit")

    for _ in range(3):
        assert rollout.embed("chosen", **{"x-cacheproxy-variant": "canary"}) == SMALL
        assert rollout.embed("chosen") == LARGE
        assert rollout.embed("chosen", **{"x-cacheproxy-variant": "stable"}) == LARGE

    assert rollout.requests("canary") - before["canary"] == 3
    assert rollout.requests("stable") - before["stable"] == 6
    # The canary's tiers are its own: of three requests the first was a miss.
    assert rollout.server.metric("lookups_total", model=SMALL, result="hit") - hits == 2
    duration = "variant_duration_seconds_count"
    assert rollout.server.metric(duration, model=LARGE, variant="canary", outcome="hot") >= 2
    body = {"model": LARGE, "input": "x"}
    wrong = {"x-cacheproxy-variant": "blue"}
    assert rollout.server.http.post("/v1/embeddings", json=body, headers=wrong).status_code == 400


def test_chat_asks_the_upstream_for_the_canary_and_keeps_its_answers_apart(rollout):
    rollout.reload(0)

    def ask(**headers) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "which one are you?"}]}
        return rollout.server.http.post("/v1/chat/completions", json=body, headers=headers)

    asked = len(rollout.upstream.asked)
    canary = {"x-cacheproxy-variant": "canary"}
    answers = [ask(), ask(**canary), ask(), ask(**canary)]

    # Without what the proxy asks of its own, such as a judge's controls.
    theirs = [one for one in rollout.upstream.asked[asked:] if one.judged_pair is None]
    assert [one.body["model"] for one in theirs] == ["m", "m2"]
    assert all(one.status_code == 200 for one in answers)
    assert ["hit" in one.headers["cache-status"] for one in answers] == [False, False, True, True]
    rollout.reload(100)
    assert rollout.requests("canary", "m") == 2
    assert "hit" in ask().headers["cache-status"]
    assert rollout.requests("canary", "m") == 3


def test_a_canary_that_is_not_served_is_refused_and_what_runs_stays(rollout):
    rollout.reload(100)
    refused = rollout.reload(100, "m")

    assert refused.status_code == 422
    assert f"canary.{LARGE}" in refused.json()["error"]["message"]
    assert rollout.embed("anybody") == SMALL


async def test_a_server_with_a_new_model_takes_over_and_every_known_text_is_a_hit(
    small_model_home, tmp_path
):
    recording, store = tmp_path / "requests.jsonl", f"sqlite:///{tmp_path / 'cache.sqlite'}"
    # What the old one was to warm up from is not there: it is ready, and says so.
    warm = {LARGE: f'texts = "{tmp_path / "none.txt"}"', SMALL: f'recording = "{recording}"'}
    for model in (LARGE, SMALL):
        settings = f'[model_aliases]\nembedder = "{model}"\n[warm]\n{warm[model]}\n'
        (tmp_path / f"{model}.toml").write_text(settings)

    def start(model: str, *flags: str) -> Server:
        config = ("--config", str(tmp_path / f"{model}.toml"), "--model", model)
        return Server(small_model_home, store, *config, *flags)

    statuses: list[int] = []
    models: list[str] = []
    is_hit: list[bool] = []

    async def ask_on(http: httpx.AsyncClient) -> None:
        for number in itertools.count():
            body = {"model": "embedder", "input": TEXTS[number % len(TEXTS)]}
            answer = await http.post("/v1/embeddings", json=body)
            statuses.append(answer.status_code)
            models.append(answer.json().get("model", ""))
            is_hit.append("hit" in answer.headers.get("cache-status", ""))
            await asyncio.sleep(0.01)

    record = ("--record-path", str(recording), "--record-texts", "--workers", "2")
    old = await asyncio.to_thread(start, LARGE, *record)
    async with Balancer() as balancer:
        balancer.add(old.url)
        await balancer.until(old.url, is_ready=True)
        assert "no warm-up" in old.log
        assert old.metric("warm_up_ratio") == 0
        async with httpx.AsyncClient(base_url=balancer.url, timeout=60) as http:
            asking = asyncio.create_task(ask_on(http))
            async with asyncio.timeout(60):
                while old.metric("recorded_requests_total") < 3 * len(TEXTS):
                    await asyncio.sleep(0.05)
            new = await asyncio.to_thread(start, SMALL)
            balancer.add(new.url)
            await balancer.until(new.url, is_ready=True)
            assert new.metric("warm_up_ratio") == 1

            old.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.process.wait, 60) == 0
            balancer.remove(old.url)
            ended, seen = len(statuses), len(TEXTS)
            async with asyncio.timeout(60):
                while len(statuses) < ended + seen:
                    await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    assert set(statuses) == {200}
    of_new = [hit for hit, model in zip(is_hit, models, strict=True) if model == SMALL]
    assert len(of_new) >= seen
    assert all(of_new)
    assert f"warmed up with {len(TEXTS)} texts" in new.log
    assert new.stop() == 0, new.log


def test_a_warm_up_is_told_while_it_runs_and_ends_at_its_deadline(start_server, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"text {'of some length ' * 20} {n}\n" for n in range(20_000)))
    flags = ("--warm-texts", str(texts), "--warm-most", "20000", "--warm-deadline-s", "3")
    server = start_server(*flags, "--workers", "2")

    first = server.http.get("/readyz")
    assert (first.status_code, first.json()["status"]) == (503, "not ready")
    assert "warming up" in first.json()["reason"]
    assert server.metric("warm_up_ratio") < 1
    body = {"model": LARGE, "input": "served meanwhile"}
    assert server.http.post("/v1/embeddings", json=body).status_code == 200
    deadline = time.monotonic() + 60
    while server.http.get("/readyz").status_code != 200 or server.log.count("had only 3 s") < 2:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.1)
    assert server.metric("warm_up_ratio") < 1
