"""The tiers as a client sees them: where an answer comes from, and that it is the same answer."""

import asyncio
import time

import aiohttp
import numpy as np
import pytest
from asking import wait_until

MODEL = "all-MiniLM-L6-v2"


def ask(server, text, **headers):
    """Return the first vector's JSON text and the response."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    response = server.http.post(
        "/v1/embeddings", json={"input": text, "model": MODEL}, headers=headers
    )
    response.raise_for_status()
    return response.text.split('"embedding":[')[1].split("]")[0], response


def status_of(response) -> str:
    return response.headers["cache-status"]


def test_the_same_text_again_is_a_hit_and_byte_identical(server):
    first, miss = ask(server, "the same text again")
    second, hit = ask(server, "the same text again")

    assert "fwd=miss" in status_of(miss)
    assert "age" not in miss.headers
    assert "hit" in status_of(hit)
    assert "detail=hot" in status_of(hit)
    assert int(hit.headers["age"]) >= 0
    assert first == second
    assert "total;dur=" in hit.headers["server-timing"]


def test_a_request_that_comes_again_and_again_gets_the_same_answer_and_is_counted(server):
    hits = server.metric("lookups_total", tier="hot", result="hit")
    answered = server.metric("requests_total", route="embeddings", status="200")
    bodies = set()
    for _ in range(5):
        _, response = ask(server, "asked again and again")
        bodies.add(response.text)

    assert len(bodies) == 1
    assert "detail=hot" in status_of(response)
    assert server.metric("lookups_total", tier="hot", result="hit") == hits + 4
    assert server.metric("requests_total", route="embeddings", status="200") == answered + 5


def test_a_request_that_came_again_and_again_is_a_miss_elsewhere_and_after_its_time(server):
    text = "the same bytes, in another namespace or too late"
    for _ in range(4):
        ask(server, text, x_cacheproxy_ttl="1")
    _, elsewhere = ask(server, text, x_cacheproxy_namespace="elsewhere")
    assert "fwd=miss" in status_of(elsewhere)

    for _ in range(4):
        ask(server, text)
    end = time.monotonic() + 10
    while "fwd=miss" not in status_of(ask(server, text)[1]):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_comes_again_and_has_left_the_hot_tier_comes_from_the_store(start_server):
    server = start_server("--cache-hot-bytes", "0", "--admin-port", "0")
    text = "asked again and again of the store"
    first, _ = ask(server, text)
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)
    ask(server, text)
    hits = server.metric("lookups_total", tier="exact", result="hit")
    looked_up = server.metric("lookups_total", tier="hot")
    answers = [ask(server, text) for _ in range(3)]

    assert all("detail=exact" in status_of(response) for _, response in answers)
    assert all(vector == first for vector, _ in answers)
    assert "exact;dur=" in answers[0][1].headers["server-timing"]
    assert server.metric("lookups_total", tier="exact", result="hit") == hits + 3
    assert server.metric("lookups_total", tier="hot") == looked_up + 3

    order = {"tenant": "default", "namespace": "default", "all": True}
    assert server.admin.post("/admin/purge", json=order).json() == {"removed": 1}
    assert "fwd=miss" in status_of(ask(server, text)[1])


def test_a_text_that_differs_only_in_case_and_spacing_is_an_exact_hit(server):
    first, _ = ask(server, "How do I reset my password?")
    for variant in ("how  do i RESET my password ?", "\tHow do I reset\nmy password?"):
        vector, response = ask(server, variant)
        assert "hit" in status_of(response)
        assert vector == first


def test_a_hit_survives_a_restart_and_comes_from_the_exact_tier(start_server):
    server = start_server()
    before, _ = ask(server, "kept over a restart")
    assert server.stop() == 0

    server = start_server()
    after, response = ask(server, "kept over a restart")

    assert "detail=exact" in status_of(response)
    assert after == before
    assert server.inferred() == 0


def test_a_text_gets_the_same_bits_alone_and_among_31_others(server):
    text = "bits that must not depend on the company they keep"
    others = [("filler " * (1 + i % 9)) + str(i) for i in range(31)]
    alone, _ = ask(server, text, cache_control="no-store")
    response = server.http.post(
        "/v1/embeddings",
        json={"input": [*others[:16], text, *others[16:]], "model": MODEL},
        headers={"cache-control": "no-store"},
    )
    rows = response.text.split('"embedding":[')[1:]

    assert rows[16].split("]")[0] == alone


async def test_a_thousand_concurrent_identical_misses_cause_one_inference(server):
    before = server.inferred()
    # httpx looks through all of its connections for each request: a thousand take 7 s.
    connector = aiohttp.TCPConnector(limit=1_000)
    async with aiohttp.ClientSession(connector=connector) as client:

        async def ask_once() -> float:
            body = {"input": "a herd of a thousand", "model": MODEL}
            async with client.post(f"{server.url}/v1/embeddings", json=body) as answer:
                assert answer.status == 200
                return (await answer.json())["data"][0]["embedding"][0]

        answers = await asyncio.gather(*(ask_once() for _ in range(1_000)))

    assert len(set(answers)) == 1
    assert server.inferred() - before == 1


def test_a_text_twice_in_one_request_is_inferred_once(server):
    before = server.inferred()
    response = server.http.post(
        "/v1/embeddings",
        json={"input": ["twin text", "TWIN text", "twin text"], "model": MODEL},
    )

    rows = [item["embedding"] for item in response.json()["data"]]
    assert rows[0] == rows[1] == rows[2]
    assert server.inferred() - before == 1


def test_no_cache_computes_again_and_refreshes_the_entry(server):
    ask(server, "refresh me")
    before = server.inferred()

    _, response = ask(server, "refresh me", cache_control="no-cache")

    assert server.inferred() - before == 1
    assert "fwd=request" in status_of(response)
    assert "hit" in status_of(ask(server, "refresh me")[1])


def test_no_store_leaves_nothing_behind(server):
    _, response = ask(server, "secret", cache_control="no-store")

    assert "stored" not in status_of(response)
    assert "fwd=miss" in status_of(ask(server, "secret")[1])


def test_only_if_cached_answers_504_on_a_miss_and_infers_nothing(server):
    body = {"input": "never seen before", "model": MODEL}
    headers = {"cache-control": "only-if-cached"}
    before = server.inferred()

    response = server.http.post("/v1/embeddings", json=body, headers=headers)

    assert response.status_code == 504
    assert response.json()["error"]["type"] == "cache_miss"
    assert server.inferred() == before
    ask(server, "never seen before")
    response = server.http.post("/v1/embeddings", json=body, headers=headers)
    assert response.status_code == 200


def test_max_age_refuses_what_is_older(server):
    ask(server, "aging")
    assert "hit" in status_of(ask(server, "aging", cache_control="max-age=600")[1])

    assert "fwd=miss" in status_of(ask(server, "aging", cache_control="max-age=0")[1])


def test_an_entry_lives_as_long_as_its_request_said_and_is_then_computed_again(server):
    ask(server, "expires", x_cacheproxy_ttl="1")
    assert "hit; ttl=0" in status_of(ask(server, "expires")[1])
    deadline = time.monotonic() + 10
    headers = {"cache-control": "only-if-cached"}
    body = {"input": "expires", "model": MODEL}
    while server.http.post("/v1/embeddings", json=body, headers=headers).status_code == 200:
        assert time.monotonic() < deadline

    assert "fwd=miss" in status_of(ask(server, "expires")[1])


def test_a_mixed_batch_says_how_many_came_from_where(server):
    ask(server, "mixed one")
    response = server.http.post(
        "/v1/embeddings",
        json={"input": ["mixed one", "mixed two", "mixed three"], "model": MODEL},
    )

    assert 'detail="hot=1,miss=2"' in status_of(response)


def test_namespaces_do_not_see_each_other(server):
    ask(server, "between namespaces", x_cacheproxy_namespace="red")

    assert "hit" in status_of(ask(server, "between namespaces", x_cacheproxy_namespace="red")[1])
    other = ask(server, "between namespaces", x_cacheproxy_namespace="blue")[1]
    assert "fwd=miss" in status_of(other)


def test_the_semantic_tier_is_closed_unless_a_threshold_is_set(server):
    ask(server, "what is the capital city of France in Europe")
    _, response = ask(server, "what is the capital city of france in europe ?!")

    assert "fwd=miss" in status_of(response)
    assert server.metric("semantic_threshold") == 2


def test_a_configured_threshold_serves_a_near_duplicate_and_says_how_near(start_server):
    server = start_server("--semantic-threshold", "0.85")
    original, _ = ask(server, "what is the capital city of France in Europe")
    near = "what is the capital city of France in Europe please"
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)

    vector, response = ask(server, near)

    assert "detail=semantic" in status_of(response)
    assert float(response.headers["x-cacheproxy-similarity"]) >= 0.85
    assert vector == original
    assert server.metric("semantic_certified") == 0


@pytest.mark.parametrize(
    "refusal", [{"x_cacheproxy_semantic": "off"}, {"x_cacheproxy_min_similarity": "0.9999"}]
)
def test_a_request_can_refuse_a_semantic_hit_or_be_stricter(start_server, refusal):
    server = start_server("--semantic-threshold", "0.85")
    ask(server, "what is the capital city of France in Europe")

    _, response = ask(server, "what is the capital city of France in Europe please", **refusal)

    assert "fwd=miss" in status_of(response)


def test_a_semantic_hit_never_crosses_a_namespace(start_server):
    server = start_server("--semantic-threshold", "0.85")
    ask(server, "what is the capital city of France in Europe", x_cacheproxy_namespace="red")

    _, response = ask(
        server,
        "what is the capital city of France in Europe please",
        x_cacheproxy_namespace="blue",
    )

    assert "fwd=miss" in status_of(response)


def test_a_real_corpus_needs_no_inference_the_second_time_nor_after_a_restart(
    start_server, shared_rows
):
    pages = [row["text"][:30_000] for row in shared_rows("corpus_redis_docs.jsonl")[::4]]
    server = start_server()

    def embed_all() -> np.ndarray:
        client = server.client(timeout=300)
        rows = []
        for start in range(0, len(pages), 64):
            answer = client.embeddings.create(input=pages[start : start + 64], model=MODEL)
            rows += [item.embedding for item in answer.data]
        return np.array(rows, np.float32)

    first = embed_all()
    inferred = server.inferred()
    second = embed_all()
    assert 0 < inferred <= len(pages)
    assert server.inferred() == inferred
    assert np.array_equal(first, second)

    assert server.stop() == 0
    server = start_server()
    third = embed_all()
    assert server.inferred() == 0
    assert np.array_equal(first, third)


@pytest.mark.parametrize("order", [1, -1])
def test_no_store_on_one_of_two_cache_control_lines_is_honoured(server, order):
    lines = [("cache-control", "no-store"), ("cache-control", "max-age=60")][::order]
    content = {"input": f"a secret, in order {order}", "model": MODEL}

    for _ in range(2):
        response = server.http.post("/v1/embeddings", json=content, headers=lines)
        assert "fwd=request" in status_of(response)
        assert "stored" not in status_of(response)


def test_two_different_keys_are_refused(server):
    lines = [("authorization", "Bearer one"), ("authorization", "Bearer other")]
    content = {"input": "whose is it", "model": MODEL}

    response = server.http.post("/v1/embeddings", json=content, headers=lines)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "duplicate_header"
