"""Vectors of texts from a cacheproxy, and the work of giving them to highlights."""

from collections.abc import Sequence

import openai
from django.conf import settings
from django.db import transaction

from .models import Highlight

_client = openai.OpenAI(
    base_url=f"{settings.CACHEPROXY_URL}/v1", api_key="unused", timeout=30, max_retries=0
)


def embed(texts: Sequence[str], timeout_s: float = 30) -> list[list[float]]:
    """Return a vector for each text.

    Raises:
        openai.OpenAIError: the proxy cannot be reached, or refuses a text.
    """
    client = _client.with_options(timeout=timeout_s)
    answer = client.embeddings.create(model=settings.EMBEDDING_MODEL, input=list(texts))
    return [one.embedding for one in answer.data]


@transaction.atomic
def embed_batch(size: int) -> int:
    """Embed the highlights that are due, at most so many; return how many were tried.

    Rows are locked meanwhile, and other workers skip them. A worker that dies gives them back with
    its transaction.
    """
    due = Highlight.objects.due().order_by("next_attempt_at")
    batch = list(due.select_for_update(skip_locked=True)[:size])
    _embed_rows(batch)
    return len(batch)


def _embed_rows(rows: Sequence[Highlight]) -> None:
    if not rows:
        return
    try:
        vectors = embed([row.text for row in rows])
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        if len(rows) == 1:
            rows[0].failed(str(error), for_good=True)
            return
        middle = len(rows) // 2  # until the text that is at fault is alone
        _embed_rows(rows[:middle])
        _embed_rows(rows[middle:])
    except openai.OpenAIError as error:
        for row in rows:
            row.failed(str(error))
    else:
        for row, vector in zip(rows, vectors, strict=True):
            row.embedding, row.failure = vector, ""
        Highlight.objects.bulk_update(rows, ["embedding", "failure"])
