"""A recording without texts becomes requests that every server reads."""

import msgspec
import pytest

from cacheproxy.inference.tokenizer import Tokenizer
from loadtest.traffic.recording import plan_recording
from loadtest.traffic.target import Target

TARGET = Target("http://127.0.0.1:1/v1", "all-MiniLM-L6-v2")
HASHES = [f"{number:032x}" for number in range(200)]


def replayed(path, tokens: int) -> list[str]:
    """Return the inputs of a replay in which each hash stands for so many token ids."""
    line = {
        "at": 1.0,
        "route": "embeddings",
        "namespace": "n",
        "hashes": HASHES,
        "characters": [None] * len(HASHES),
        "tokens": [tokens] * len(HASHES),
    }
    path.write_bytes(msgspec.json.encode(line) + b"\n")
    (plan,) = plan_recording(str(path), TARGET, 1.0)
    (request,) = plan.requests
    return msgspec.json.decode(request.partition(b"\r\n\r\n")[2])["input"]


@pytest.mark.parametrize("tokens", [1, 6, 40, 200])
def test_recorded_token_ids_become_texts_of_about_as_many_tokens(tmp_path, installed, tokens):
    texts = replayed(tmp_path / "a.jsonl", tokens)

    assert texts == replayed(tmp_path / "b.jsonl", tokens)
    assert tokens < 6 or len(set(texts)) == len(HASHES)
    lengths = map(len, Tokenizer(installed.tokenizer_json, installed.max_tokens).encode(texts))
    assert sum(lengths) / len(texts) == pytest.approx(max(tokens, 3), rel=0.15)
