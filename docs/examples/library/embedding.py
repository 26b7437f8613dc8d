"""Vectors of texts, from a cacheproxy."""

import os
from collections.abc import Sequence

import numpy as np
from openai import OpenAI

URL = os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:8080")
MODEL = os.environ.get("MODEL", "all-MiniLM-L6-v2")

_client = OpenAI(base_url=f"{URL}/v1", api_key="unused", timeout=30, max_retries=5)


def embed(texts: Sequence[str], *, patient: bool = True) -> list[np.ndarray]:
    """Return a float32 [384] of unit length for each text.

    A patient caller waits while the proxy is busy or away, with pauses that grow.

    Raises:
        openai.OpenAIError: the proxy cannot be reached, or refuses a text.
    """
    client = _client if patient else _client.with_options(timeout=2, max_retries=0)
    answer = client.embeddings.create(model=MODEL, input=list(texts))
    return [np.array(one.embedding, dtype=np.float32) for one in answer.data]
