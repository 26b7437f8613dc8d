"""Several servers with one Redis behind them, and what they do when it is gone."""

import time

MODEL = "all-MiniLM-L6-v2"
TEXT = "what is the capital city of France in Europe"


def ask(server, text):
    response = server.http.post("/v1/embeddings", json={"input": text, "model": MODEL})
    assert response.status_code == 200, response.text
    return response.json()["data"][0]["embedding"], response.headers["cache-status"]


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_what_one_server_computed_the_other_has(start_redis, start_server):
    redis = start_redis()
    one, other = (start_server("--semantic-threshold", "0.85", store=redis.url) for _ in range(2))
    vector, status = ask(one, TEXT)
    assert "fwd=miss" in status
    wait_until(lambda: one.metric("writeback_stored_total") == 1)

    again, status = ask(other, TEXT.upper())
    assert "detail=exact" in status
    assert again == vector
    near, status = ask(other, TEXT + " please")
    assert "detail=semantic" in status
    assert near == vector
    assert other.inferred() == 0


def test_no_request_fails_while_redis_is_away_and_hits_return_with_it(start_redis, start_server):
    redis = start_redis()
    server = start_server("--cache-hot-bytes", "0", store=redis.url)
    redis.kill()
    for n in range(5):
        assert "fwd=miss" in ask(server, f"asked while it is away {n}")[1]
    assert server.metric("store_up") == 0
    assert server.metric("store_errors_total", kind="connection") > 0

    redis.start()

    def is_up():
        ask(server, "asked until it is back")
        return server.metric("store_up") == 1 and not server.metric("store_breaker_state")

    wait_until(is_up)
    ask(server, "asked when it is back")
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)
    assert "detail=exact" in ask(server, "asked when it is back")[1]


def test_a_server_starts_without_its_redis(start_redis, start_server):
    redis = start_redis()
    redis.stop()
    server = start_server("--cache-hot-bytes", "0", store=redis.url)
    assert server.http.get("/readyz").status_code == 200
    assert "fwd=miss" in ask(server, "the first text")[1]
    redis.start()

    def is_stored():
        ask(server, "asked until it is there")
        return server.metric("writeback_stored_total") > 0

    wait_until(is_stored)
