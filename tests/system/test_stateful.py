"""Any history of requests to a real server is served as a small model of the cache allows.

The model knows, for each tenant, namespace and question, which answer may come from the cache: the
last that was made there, until a purge or a request with `no-cache` ended it. Hypothesis makes up
the histories, and shrinks one that breaks the model. `CACHEPROXY_TEST_HISTORIES` says how many.
"""

import itertools
import json
import os

import httpx
import pytest
from asking import MODEL
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from server_process import Server
from upstream import says

from cacheproxy.api.access.key_ring import hash_key

TENANTS = ("acme", "other")
QUESTIONS = ("how do I reset my password", "where is the invoice of May")
CONTROLS = ("", "", "", "no-cache", "no-store", "only-if-cached")
TAG_SETS = ("", "red", "red,blue")
HISTORIES = int(os.environ.get("CACHEPROXY_TEST_HISTORIES", "10"))

PLACES = st.sampled_from([("acme", "one"), ("acme", "two"), ("other", "one")])
ASKED = st.sampled_from(QUESTIONS)
CONTROL = st.sampled_from(CONTROLS)
TAGS = st.sampled_from(TAG_SETS)

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def served(model_home, upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stateful")
    keys = "".join(f'{tenant} = ["{hash_key(tenant)}"]\n' for tenant in TENANTS)
    config = folder / "cacheproxy.toml"
    config.write_text(f"[api_keys]\n{keys}")
    server = Server(
        model_home,
        f"sqlite:///{folder / 'cache.sqlite'}",
        *("--config", str(config), "--upstream", upstream.url, "--drain-s", "0"),
        *("--admin-port", "0", "--chat-semantic", "off", "--semantic-mode", "off"),
    )
    yield server
    assert server.stop() == 0, server.log


class Kept:
    """An answer that the cache may give.

    Attributes:
        is_sure: whether it must: a purge by tag may cost its namespace's other entries.
    """

    def __init__(self, answer: object, tags: str) -> None:
        self.answer = answer
        self.tags = tags.split(",")
        self.is_sure = True


def test_any_history_is_served_as_the_model_allows(served, upstream):
    vectors: dict[str, object] = {}

    class Histories(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.number = next(_numbers)
            self.kept: dict[tuple, Kept] = {}

        @rule(place=PLACES, question=ASKED, control=CONTROL, tags=TAGS)
        def embed(self, place, question, control, tags):
            entry = ("embeddings", place, question)
            body = {"model": MODEL, "input": question, "encoding_format": "base64"}
            answer = self.ask("/v1/embeddings", place, body, control, tags)
            if self.check_status(entry, control, answer):
                vector = answer.json()["data"][0]["embedding"]
                assert vectors.setdefault(question, vector) == vector  # whoever computed it
                self.remember(entry, control, answer, vector, tags)

        @rule(place=PLACES, question=ASKED, control=CONTROL, tags=TAGS)
        def chat(self, place, question, control, tags):
            entry = ("chat", place, question)
            fresh = f"answer {next(_numbers)}"
            upstream.plan.clear()
            upstream.plan.append(says(200, completion(fresh)))
            body = {"model": "m", "messages": [{"role": "user", "content": question}]}
            answer = self.ask("/v1/chat/completions", place, body, control, tags)
            if self.check_status(entry, control, answer):
                text = answer.json()["choices"][0]["message"]["content"]
                expected = self.kept[entry].answer if is_hit(answer) else fresh
                assert text == expected
                self.remember(entry, control, answer, text, tags)

        @rule(place=PLACES)
        def purge_all(self, place):
            self.purge(place, all=True)
            self.forget(lambda entry, kept: entry[1] == place)

        @rule(place=PLACES, question=ASKED)
        def purge_text(self, place, question):
            self.purge(place, text=question)
            self.forget(lambda entry, kept: entry == ("embeddings", place, question))

        @rule(place=PLACES, tag=st.sampled_from(("red", "blue")))
        def purge_tag(self, place, tag):
            self.purge(place, tag=tag)
            self.forget(lambda entry, kept: entry[1] == place and tag in kept.tags)
            for entry, kept in self.kept.items():
                kept.is_sure &= entry[1] != place

        @rule(place=PLACES, key=st.sampled_from(("nobody", "unknown")))
        def intrude(self, place, key):
            headers = {"authorization": f"Bearer {key}", "x-cacheproxy-namespace": self.name(place)}
            body = {"model": MODEL, "input": QUESTIONS[0]}
            assert served.http.post("/v1/embeddings", json=body, headers=headers).status_code == 401

        def name(self, place) -> str:
            return f"{place[1]}-{self.number}"

        def ask(self, path, place, body, control, tags) -> httpx.Response:
            headers = {
                "authorization": f"Bearer {place[0]}",
                "x-cacheproxy-namespace": self.name(place),
                **({"cache-control": control} if control else {}),
                **({"x-cacheproxy-tags": tags} if tags else {}),
            }
            return served.http.post(path, json=body, headers=headers)

        def check_status(self, entry, control, answer) -> bool:
            """Return whether there is an answer; check that it is a hit only if it may be one."""
            kept = self.kept.get(entry)
            if control == "only-if-cached" and answer.status_code == 504:
                assert kept is None or not kept.is_sure
                return False
            assert answer.status_code == 200, answer.text
            if is_hit(answer):
                assert kept is not None
                assert control not in ("no-cache", "no-store")
            elif control in ("", "only-if-cached"):
                assert control == ""
                assert kept is None or not kept.is_sure
            return True

        def remember(self, entry, control, answer, value, tags) -> None:
            if not is_hit(answer) and control != "no-store":
                self.kept[entry] = Kept(value, tags)

        def forget(self, named) -> None:
            self.kept = {one: kept for one, kept in self.kept.items() if not named(one, kept)}

        def purge(self, place, **scope) -> None:
            order = {"tenant": place[0], "namespace": self.name(place), **scope}
            answer = served.admin.post("/admin/purge", json=order)
            assert answer.status_code == 200, answer.text

    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=60,
            deadline=None,
            derandomize=HISTORIES < 100,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def is_hit(answer: httpx.Response) -> bool:
    return "; hit" in answer.headers["cache-status"]


def completion(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop"}
    choice["message"] = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**answer, "choices": [choice], "usage": usage}).encode()
