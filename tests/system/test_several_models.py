"""Two real models in one process: each as it is alone, with tiers, names and metrics of its own."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from asking import wait_until
from server_process import Server

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import load_installed

LARGE, SMALL = "all-MiniLM-L6-v2", "paraphrase-MiniLM-L3-v2"
TEXTS = [f"{'How do I reset my password, ' * (1 + i % 5)} case {i}?" for i in range(40)]


@pytest.fixture(scope="module")
def both(small_model_home):
    flags = ("--drain-s", "0", "--model", LARGE, "--model", SMALL, "--admin-port", "0")
    server = Server(small_model_home, "memory://", *flags)
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(scope="module")
def embed(both):
    """Return a function that embeds a text: float32 [dimensions]."""
    client = both.client()

    def embed_one(model: str, text: str) -> np.ndarray:
        answer = client.embeddings.create(model=model, input=text)
        return np.array(answer.data[0].embedding, np.float32)

    return embed_one


def test_vectors_are_bit_for_bit_those_of_each_model_alone(embed, small_model_home):
    with ThreadPoolExecutor(8) as pool:  # at the same time, so that the threads are shared
        asked = [(name, text) for text in TEXTS for name in (LARGE, SMALL)]
        found = list(pool.map(lambda one: embed(*one), asked))

    for first, name in enumerate((LARGE, SMALL)):
        installed = load_installed(name, small_model_home)
        encoder = OnnxEncoder(installed.graph)
        ids = Tokenizer(installed.tokenizer_json, installed.max_tokens).encode(TEXTS)
        alone = [encoder.encode(np.array([text]))[0] for text in ids]
        served = found[first::2]
        assert [one.tobytes() for one in served] == [one.tobytes() for one in alone]


def test_equal_texts_of_two_models_are_two_entries_and_counted_apart(both, embed):
    embed(LARGE, "a text that both are asked for")
    before = {name: both.metric("batch_texts_sum", model=name) for name in (LARGE, SMALL)}

    vectors = [embed(name, "a text that both are asked for") for name in (LARGE, SMALL)]

    after = {name: both.metric("batch_texts_sum", model=name) for name in (LARGE, SMALL)}
    assert not np.array_equal(*vectors)
    assert after == {LARGE: before[LARGE], SMALL: before[SMALL] + 1}


def test_every_model_is_listed_by_its_name_and_found_by_its_aliases(both):
    models = {model["id"]: model for model in both.http.get("/v1/models").json()["data"]}

    assert list(models) == [LARGE, SMALL]
    assert {name: model["max_tokens"] for name, model in models.items()} == {LARGE: 256, SMALL: 128}
    assert models[LARGE]["fingerprint"] != models[SMALL]["fingerprint"]
    assert both.client().models.retrieve(f"sentence-transformers/{SMALL}").id == SMALL


def test_the_first_model_answers_where_none_is_named(both):
    answer = both.http.post("/embed", json={"texts": ["anything"]}).json()

    assert answer["model"] == LARGE


def test_a_model_that_is_not_served_is_told_which_are(embed):
    with pytest.raises(openai.NotFoundError, match=f"served: {LARGE}, {SMALL}"):
        embed("bge-small-en-v1.5", "anything")


def test_purging_a_text_purges_it_for_all_models(both, embed):
    for name in (LARGE, SMALL):
        embed(name, "purge me")
    wait_until(lambda: both.metric("writeback_queue_entries") == 0)

    order = {"tenant": "default", "namespace": "default", "text": "purge me"}

    assert both.admin.post("/admin/purge", json=order).json()["removed"] == 2


def test_each_model_has_thresholds_of_its_own(both, embed):
    for name in (LARGE, SMALL):
        embed(name, "a text that is long enough to be looked up by its meaning")

    found = both.admin.get("/admin/thresholds").json()["namespaces"]

    assert [namespace["model"] for namespace in found] == [LARGE, SMALL]
    assert len({namespace["id"] for namespace in found}) == 1


def test_the_memory_of_each_model_is_told_at_the_start(both):
    for name in (LARGE, SMALL):
        assert f"model {name}: " in both.log
        assert both.metric("model_memory_bytes", model=name) > 20e6


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((LARGE, "no-such-model"), "no model is called 'no-such-model'; known models: "),
        ((LARGE, f"sentence-transformers/{LARGE}"), f"is the same model as {LARGE}; name it once"),
    ],
)
def test_a_model_that_cannot_be_served_is_an_error_at_the_start(model_home, names, told):
    flags = [part for name in names for part in ("--model", name)]
    command = [sys.executable, "-m", "cacheproxy", "serve", "--port", "0", *flags]
    command += ["--home", str(model_home), "--store", "memory://"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert told in line
