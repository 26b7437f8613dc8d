"""Several workers tell one state of each namespace: the best informed one's, with all hits."""

from cacheproxy.admin.merged_thresholds import merge_thresholds


def told(labels: float, hits: int, *, chat: dict | None = None) -> dict:
    thresholds = [{"min_similarity": 0.95, "labels": labels}]
    namespace = {"model": "m", "id": "a", "hits": hits, "spared_s": 0.5, "thresholds": thresholds}
    more = {} if chat is None else {"chat": {"mode": "on", "models": chat}}
    return {"mode": "on", "namespaces": [namespace], **more}


def chat_model(labels: int, requests: int) -> dict:
    namespace = {"id": "a", "labels": labels, "hits": labels, "saved_s": 2.0}
    return {"own_requests": {"label": requests}, "namespaces": [namespace]}


def test_the_worker_with_the_most_labels_tells_the_state_and_hits_are_summed():
    (namespace,) = merge_thresholds([told(3, 10), told(7, 20)])["namespaces"]

    assert namespace["thresholds"][0]["labels"] == 7
    assert (namespace["hits"], namespace["spared_s"]) == (30, 1.0)


def test_a_model_that_only_one_worker_knows_is_told():
    workers = [told(0, 0, chat={}), told(0, 0, chat={"gpt": chat_model(5, 9)})]
    for order in (workers, workers[::-1]):
        assert merge_thresholds(order)["chat"]["models"]["gpt"]["namespaces"][0]["labels"] == 5


def test_chat_namespaces_are_merged_like_others():
    models = [{"gpt": chat_model(5, 1)}, {"gpt": chat_model(8, 4)}]
    merged = merge_thresholds([told(0, 0, chat=one) for one in models])["chat"]["models"]["gpt"]

    assert merged["own_requests"] == {"label": 4}
    assert merged["namespaces"] == [{"id": "a", "labels": 8, "hits": 13, "saved_s": 4.0}]
