"""Unmodified clients against the real server: what the page `docs/clients.md` says is what happens.

The clients run in processes of their own (`tests/clients/`): some have an environment of their
own, some are for Node.js. `.ci/run` installs them all; elsewhere, those that are missing are left
out.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reranking import NAME as RERANKER
from reranking import home_with_reranker
from server_process import Server
from tiktoken_cache import fill_tiktoken_cache
from upstream import says, well_behaved

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "clients"
MODEL = "all-MiniLM-L6-v2"
ANSWER = "You asked: What is a proxy?"
CHAT, MODERATOR = "gpt-4o-mini", "omni-moderation-latest"
TEXT = "how do I reset my password?"
TEXTS = ["hello", TEXT, "Straße und 你好"]

OWN_ENVIRONMENT = ("LiteLLM", "LlamaIndex", "Haystack")
"""Clients that `CACHEPROXY_TEST_CLIENTS`, the folder of a virtual environment, may have."""


def table() -> dict[tuple[str, str], str]:
    """Return the rows of the page: a client and its call, and whether it works."""
    rows = {}
    for line in (ROOT / "docs" / "clients.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[2] in {"yes", "no"}:
            rows[cells[0], cells[1].strip("`")] = cells[2]
    return rows


LISTED = json.dumps(
    {
        "object": "list",
        "data": [
            {"id": each, "object": "model", "created": 1, "owned_by": "upstream"}
            for each in (CHAT, MODERATOR)
        ],
    }
).encode()

MODERATION = json.dumps(
    {
        "id": "modr-1",
        "model": MODERATOR,
        "results": [
            {
                "flagged": True,
                "categories": {},
                "category_scores": {},
                "category_applied_input_types": {},
            }
        ],
    }
).encode()


async def moderates(exchange) -> None:
    """Answer a moderation; everything else as an upstream that behaves well."""
    if exchange.asked.path == "/v1/moderations":
        await exchange.answer(200, MODERATION)
    else:
        await well_behaved(exchange)


@pytest.fixture(scope="module")
def served(model_home, upstream, tmp_path_factory):
    """A server with an OpenAI model's name for its model, and a reranker, before an upstream."""
    upstream.listing = says(200, LISTED)
    upstream.always = moderates
    home = home_with_reranker(tmp_path_factory.mktemp("clients"), model_home)
    config = home / "cacheproxy.toml"
    config.write_text(f'[model_aliases]\n"text-embedding-3-small" = "{MODEL}"\n')
    models = ("--model", MODEL, "--model", RERANKER)
    flags = (*models, "--drain-s", "0", "--upstream", upstream.url, "--config", str(config))
    server = Server(home, "memory://", *flags)
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(scope="module")
def results(served, tmp_path_factory) -> dict[tuple[str, str], dict]:
    """What every call gave, of all clients that are installed."""
    folder = tmp_path_factory.mktemp("scripts")
    python = shutil.copy(SCRIPTS / "python_clients.py", folder)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "TIKTOKEN_CACHE_DIR": str(fill_tiktoken_cache(folder)),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }
    commands = [[sys.executable, python, served.url]]
    if own := os.environ.get("CACHEPROXY_TEST_CLIENTS"):
        commands.append([f"{own}/bin/python", python, served.url, *OWN_ENVIRONMENT])
    if node := os.environ.get("CACHEPROXY_TEST_NODE_CLIENTS"):
        script = shutil.copy(SCRIPTS / "node_clients.mjs", node)
        commands.append(["node", script, served.url])
    ran = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    lines = [
        json.loads(line)
        for one in ran
        for line in one.communicate(timeout=300)[0].split("\n")
        if line
    ]
    return {(line["client"], line["call"]): line for line in lines}


def ranks(served) -> str:
    """Return what the server gives for the texts in a plain request to rank them."""
    body = {"query": "What is a proxy?", "documents": TEXTS}
    results = served.http.post("/v1/rerank", json=body).json()["results"]
    return "ranks " + " ".join(str(one["index"]) for one in results)


TOLD = {
    "models.retrieve": MODEL,
    "models.retrieve, of an upstream": CHAT,
    "models.list": f"names {MODEL} {CHAT} {RERANKER}",
    "moderations.create": "flagged True",
    "InferenceClient.get_endpoint_info": MODEL,
    "InferenceClient.health_check": "healthy True",
    "POST /tokenize": "tokens [CLS] how do I reset my password ? [SEP]",
}
"""What calls return that ask neither for vectors nor for an answer nor for an order."""


def is_right(line: dict, expected: np.ndarray, ranked: str) -> bool:
    """Return whether a call gave what the server gives for the same texts in plain requests."""
    gave = line.get("gave")
    if isinstance(gave, str):
        rest = ranked if gave.startswith("ranks ") else ANSWER
        return gave == TOLD.get(line["call"], rest)
    if isinstance(gave, dict):
        return bool(np.allclose(gave["cosines"], expected @ expected[1], atol=1e-4))
    if gave is None:
        return False
    vectors = np.array(gave, ndmin=2)
    wanted = expected if len(vectors) > 1 else expected[1:2]
    return vectors.shape == wanted.shape and bool(np.min(np.sum(vectors * wanted, axis=1)) > 0.9999)


def test_every_call_does_what_the_page_says(results, served):
    answer = served.client().embeddings.create(model=MODEL, input=TEXTS)
    expected = np.array([one.embedding for one in answer.data])
    ranked = ranks(served)
    found = {
        name: "yes" if is_right(line, expected, ranked) else "no" for name, line in results.items()
    }
    on_page = table()

    missing = on_page.keys() - found.keys()
    assert not missing or not os.environ.get("CI"), missing
    errors = {
        name: line.get("error") or line for name, line in results.items() if found[name] == "no"
    }
    assert found == {name: on_page.get(name) for name in found}, errors


def test_every_client_of_the_page_has_its_heading_in_the_scripts():
    scripts = "".join(path.read_text() for path in SCRIPTS.glob("*_clients.*"))

    for client, _ in table():
        assert f'"{client}"' in scripts, client
