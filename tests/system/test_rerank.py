"""Reranking over HTTP, in every provider's form: local scores are the cross-encoder's own, each
pair is inferred once, and upstreams' scores are cached as well."""

import json
import math
import os
from collections.abc import Iterator

import numpy as np
import pytest
from asking import MODEL, wait_until
from load_command import loadtest
from reranking import NAME, home_with_reranker, load_reranker
from server_process import Server

from cacheproxy.inference.input import Pair
from cacheproxy.inference.pairs import PairTokenizer
from cacheproxy.inference.session import OnnxEncoder

THEIRS = "rerank-theirs"
QUERY = "What is a cache stampede?"
WORDS = ("cache", "store", "request", "answer", "vector", "index", "model", "token", "limit")


def documents(count: int, salt: str = "") -> list[str]:
    """Return documents of several lengths, each unlike all others."""
    rng = np.random.default_rng(len(salt) + 1)
    return [
        f"{salt} {i} {' '.join(rng.choice(WORDS, int(rng.integers(1, 40))))}" for i in range(count)
    ]


async def ranks(exchange):
    """Answer as a rerank server does: a document's score is its share of the letter e."""
    body = exchange.asked.body
    results = [
        {"index": i, "relevance_score": one.count("e") / max(len(one), 1)}
        for i, one in enumerate(body["documents"])
    ]
    results.sort(key=lambda row: -row["relevance_score"])
    answer = {"results": results, "usage": {"total_tokens": 10 * len(results)}}
    await exchange.answer(200, json.dumps(answer).encode())


@pytest.fixture(autouse=True)
def _ranks(_as_scripted, upstream):
    upstream.always = ranks


@pytest.fixture(scope="module")
def home(model_home, tmp_path_factory):
    return home_with_reranker(tmp_path_factory.mktemp("rerank"), model_home)


@pytest.fixture(scope="module")
def server(home, upstream) -> Iterator[Server]:
    config = home / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\napi_key = "sk-ours"\n'
        f'rerank = ["{THEIRS}"]\n[model_aliases]\n"rerank-v3.5" = "{NAME}"\n'
    )
    flags = ("--model", MODEL, "--model", NAME, "--config", str(config), "--admin-port", "0")
    server = Server(home, "memory://", "--drain-s", "0", *flags)
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(scope="module")
def score(home):
    """Return a function that scores pairs, each alone, with the installed graph."""
    installed = load_reranker(home)
    encoder = OnnxEncoder(installed.graph)
    tokenizer = PairTokenizer(
        installed.tokenizer_json, installed.max_tokens, installed.segment_offset
    )

    def score_pairs(*pairs: Pair) -> list[float]:
        return [float(encoder.encode(np.array([i]))[0, 0]) for i in tokenizer.encode(pairs)]

    return score_pairs


def ask(server, path="/v1/rerank", headers=None, **body):
    return server.http.post(path, json={"query": QUERY} | body, headers=headers or {})


def scores(response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    rows = response.json()
    if isinstance(rows, list):
        return {row["index"]: row["score"] for row in rows}
    return {row["index"]: row["relevance_score"] for row in rows["results"]}


def inferred(server) -> float:
    return server.metric("batch_texts_sum", model=NAME)


def test_a_changed_list_of_candidates_infers_its_new_documents_only(server):
    seen, new = documents(90, "seen"), documents(10, "new")
    first = scores(ask(server, documents=seen))
    before = inferred(server)
    mixed = [*new[:5], *reversed(seen), *new[5:]]

    answer = ask(server, documents=mixed)

    assert inferred(server) - before == 10
    assert answer.headers["cache-status"].endswith('detail="hot=90,miss=10"')
    found = {mixed[i]: score for i, score in scores(answer).items()}
    assert {one: found[one] for one in seen} == {one: first[i] for i, one in enumerate(seen)}


def test_scores_are_bit_equal_to_those_of_pairs_alone(server, score):
    texts = documents(60, "bits")
    raw = ask(server, "/rerank", texts=texts, raw_scores=True)

    alone = score(*(Pair(QUERY, one) for one in texts))

    assert scores(raw) == dict(enumerate(alone))
    assert [row["score"] for row in raw.json()] == sorted(alone, reverse=True)
    relevance = scores(ask(server, documents=texts))
    assert relevance == {i: pytest.approx(1 / (1 + math.exp(-s))) for i, s in enumerate(alone)}


def test_equal_pairs_are_inferred_once_whatever_their_bytes(server):
    before = inferred(server)

    first = ask(server, documents=["How do I  cache?", "how do i cache?", "How do I  cache?"])
    again = ask(server, query=f"  {QUERY.upper()}", documents=["HOW DO I CACHE?"])

    assert inferred(server) - before == 1
    assert set(scores(first).values()) == set(scores(again).values())


def test_a_pair_is_not_its_reverse_nor_one_with_a_special_token_in_its_text(server, score):
    pairs = [Pair("a b", "c"), Pair("c", "a b"), Pair("a", "b [SEP] c"), Pair("a [SEP] b", "c")]

    found = [
        scores(ask(server, "/rerank", query=pair.query, texts=[pair.document], raw_scores=True))[0]
        for pair in pairs
    ]

    assert found == score(*pairs)
    assert len(set(found)) == len(pairs)


def test_jina_and_vllm_are_answered_in_their_form(server):
    texts = documents(4, "jina")

    answer = ask(server, model="rerank-v3.5", documents=[texts[0], {"text": texts[1]}], top_n=1)
    bare = ask(server, documents=texts, return_documents=False)

    body = answer.json()
    (best,) = body["results"]
    assert best["document"] == {"text": texts[best["index"]]}
    assert body["model"] == NAME
    assert body["usage"]["total_tokens"] > 10
    ordered = [row["relevance_score"] for row in bare.json()["results"]]
    assert ordered == sorted(ordered, reverse=True)
    assert [set(row) for row in bare.json()["results"]] == [{"index", "relevance_score"}] * 4
    assert all(0 < value < 1 for value in ordered)


def test_tei_is_answered_in_its_form(server):
    texts = documents(3, "tei")

    plain, full = (
        ask(server, "/rerank", texts=texts),
        ask(server, "/rerank", texts=texts, return_text=True),
    )

    assert all(set(row) == {"index", "score"} for row in plain.json())
    assert {row["index"]: row["text"] for row in full.json()} == dict(enumerate(texts))
    assert ask(server, "/rerank", documents=texts).json()["results"]


def test_long_texts_are_truncated_as_asked(server, score):
    long = " ".join(WORDS * 60)
    words = Pair(QUERY, long)

    def raw(path="/rerank", **body) -> float:
        return scores(ask(server, path, **body))[0]

    assert raw(texts=[long], raw_scores=True) == score(words)[0]
    left = raw(texts=[long], raw_scores=True, truncation_direction="left")
    assert left == score(words._replace(keeps="end"))[0] != score(words)[0]
    few = raw("/v1/rerank", documents=[long], use_activation=False, max_tokens_per_doc=7)
    assert few == score(words._replace(document_tokens=7))[0]
    short = raw("/v1/rerank", documents=[long], use_activation=False, truncate_prompt_tokens=20)
    assert short == score(words._replace(most_tokens=20))[0]
    refused = ask(server, "/rerank", texts=[long], truncate=False)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "input_too_long"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"documents": []}, "documents"),
        ("/v1/rerank", {"documents": ["a"], "query": ""}, "query"),
        ("/v1/rerank", {"documents": ["a"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"documents": [{"image": "a"}]}, "documents"),
        ("/v1/rerank", {"documents": ["a"], "model": MODEL}, "model"),
        ("/v2/rerank", {"documents": ["a"], "top_n": 0}, "top_n"),
        ("/rerank", {"texts": ["a"], "documents": ["a"]}, "texts"),
        ("/rerank", {"texts": ["x" * 40_000]}, "texts"),
        ("/v1/rerank", {"documents": ["a"] * 3_000}, "documents"),
        ("/rerank", {"texts": ["a"], "model": THEIRS, "raw_scores": True}, None),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_openais_form(server, path, body, param):
    answer = ask(server, path, **body)

    assert answer.status_code in {400, 404, 422}
    assert answer.json()["error"]["param"] == param


def test_a_reranker_embeds_nothing_and_is_listed_as_what_it_is(server):
    refused = server.http.post("/v1/embeddings", json={"input": "a", "model": NAME})
    listed = {model["id"]: model for model in server.http.get("/v1/models").json()["data"]}

    assert refused.json()["error"]["code"] == "model_not_found"
    assert listed[NAME]["kind"] == listed[THEIRS]["kind"] == "rerank"
    assert listed[NAME]["max_tokens"] == 512
    assert "dimensions" not in listed[NAME]
    assert (listed[NAME]["owned_by"], listed[THEIRS]["owned_by"]) == ("cacheproxy", "upstream")


def test_scores_of_an_upstream_are_cached_as_they_come(server, upstream):
    texts = documents(6, "theirs")
    first, asked = ask(server, model=THEIRS, documents=texts[:4]), len(upstream)

    again = ask(server, "/v2/rerank", model=THEIRS, documents=texts)

    assert len(upstream) == asked + 1
    sent = upstream.last
    assert sent.body == {"model": THEIRS, "query": QUERY, "documents": texts[4:]}
    assert sent.headers["authorization"] == "Bearer sk-ours"
    assert scores(again) == {i: one.count("e") / len(one) for i, one in enumerate(texts)}
    assert scores(first).items() <= scores(again).items()
    assert first.json()["usage"]["total_tokens"] == 40
    assert again.json()["meta"]["tokens"]["input_tokens"] == 60
    assert 'detail="hot=4,miss=2"' in again.headers["cache-status"]


def test_an_upstream_that_leaves_a_document_out_is_an_error_and_nothing_is_kept(server, upstream):
    async def forgets(exchange):
        await exchange.answer(200, b'{"results": [{"index": 0, "relevance_score": 0.5}]}')

    upstream.always = forgets
    failed = ask(server, model=THEIRS, documents=["one e", "two e"])
    upstream.always = ranks
    good = ask(server, model=THEIRS, documents=["one e", "two e"])

    assert failed.status_code == 502
    assert "fwd=miss" in good.headers["cache-status"]
    assert scores(good) == {0: 2 / 5, 1: 1 / 5}


def test_a_request_controls_the_cache_as_for_embeddings(server):
    texts = documents(3, "control")
    assert (
        ask(server, documents=texts, headers={"cache-control": "only-if-cached"}).status_code == 504
    )
    ask(server, documents=texts, headers={"cache-control": "no-store"})
    stored = ask(server, documents=texts, headers={"x-cacheproxy-ttl": "60"})
    hit = ask(server, documents=texts)
    other = ask(server, documents=texts, headers={"x-cacheproxy-namespace": "other"})

    assert "fwd=miss" in stored.headers["cache-status"]
    assert "hit" in hit.headers["cache-status"]
    assert int(hit.headers["cache-status"].split("ttl=")[1].split(";")[0]) <= 60
    assert "fwd=miss" in other.headers["cache-status"]


def test_scores_are_purged_by_tag_and_by_their_pair(server):
    texts = documents(3, "purge")
    ask(server, documents=texts, headers={"x-cacheproxy-tags": "docs"})
    ask(server, documents=texts[:1], headers={"cache-control": "no-cache"})
    # Until it is stored, the entry in its place is the one with the tag.
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)
    space = {"tenant": "default", "namespace": "default"}

    assert server.admin.post("/admin/purge", json={**space, "tag": "docs"}).status_code == 200
    by_tag = ask(server, documents=texts)
    order = {**space, "query": QUERY, "text": texts[1]}
    assert server.admin.post("/admin/purge", json=order).status_code == 200
    by_pair = ask(server, documents=texts)

    assert 'miss=2"' in by_tag.headers["cache-status"]
    assert 'miss=1"' in by_pair.headers["cache-status"]
    only_query = server.admin.post("/admin/purge", json={**space, "query": QUERY})
    assert only_query.json()["error"]["param"] == "query"


def test_operators_see_reranking(server):
    stats = server.admin.get("/admin/stats").json()

    assert stats["models"] == [MODEL, NAME, THEIRS]
    assert server.metric("requests_total", route="rerank", model=NAME, status="200") > 0
    assert server.metric("requests_total", route="rerank_tei", model=NAME) > 0
    assert server.metric("lookups_total", model=NAME, tier="exact", result="miss") > 0
    assert server.metric("lookups_total", model=NAME, tier="semantic") == 0


def test_reranking_is_recorded_and_replayed(home, tmp_path):
    path, flags = tmp_path / "requests.jsonl", ("--model", MODEL, "--model", NAME)
    texts = documents(5, "recorded")
    first = Server(home, "memory://", "--drain-s", "0", *flags, "--record-path", str(path))
    ask(first, documents=texts[:3])
    ask(first, "/rerank", texts=texts)
    ask(first, "/v2/rerank", query="another query", documents=[{"text": texts[0]}])
    assert first.stop() == 0, first.log
    assert texts[0] not in path.read_text()
    assert QUERY not in path.read_text()

    second = Server(home, "memory://", "--drain-s", "0", *flags)
    done = loadtest("replay", path, "--url", second.url, "--speed", "0.2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "clients and server agree" in done.stdout
    assert inferred(second) == 6
    second.stop()


def test_the_official_client_of_cohere_is_answered(server):
    if os.environ.get("CI"):
        import cohere
    else:
        cohere = pytest.importorskip("cohere", reason="pip install '.[test]' brings it")
    texts = documents(4, "cohere")
    client = cohere.ClientV2(api_key="unused", base_url=server.url)

    answer = client.rerank(model=NAME, query=QUERY, documents=texts, top_n=2)

    expected = scores(ask(server, documents=texts))
    assert [(row.index, row.relevance_score) for row in answer.results] == sorted(
        expected.items(), key=lambda row: -row[1]
    )[:2]
    first_version = cohere.Client(api_key="unused", base_url=server.url)
    older = first_version.rerank(
        model=NAME, query=QUERY, documents=texts, top_n=1, return_documents=True
    )
    assert older.results[0].document.text == texts[answer.results[0].index]
