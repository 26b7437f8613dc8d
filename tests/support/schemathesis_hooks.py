"""What a schema cannot know of the server under test, so that most generated requests get far.

A document of all servers does not hold one server's models, their vocabulary and dimensions.
"""

import schemathesis

MODEL, DIMENSIONS = "all-MiniLM-L6-v2", 384
FIRST, WORD, LAST = 101, 2003, 102
"""Token ids of the model: its special tokens around a text, and the word "is"."""


def _suited(value):
    """Return the same value with token ids that the model's tokenizer gives for a text."""
    if not isinstance(value, list) or not value:
        return value
    if all(_is_whole(each) for each in value):
        return [FIRST, *[WORD] * len(value), LAST]
    return [_suited(each) for each in value]


def _is_whole(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0


def _is_of_bits(body):
    dtypes = ("binary", "ubinary", ["binary"], ["ubinary"])
    fields = ("output_dtype", "embedding_type", "embedding_types")
    return any(body.get(field) in dtypes for field in fields)


@schemathesis.hook
def map_body(context, body):
    path = context.operation.path
    if not isinstance(body, dict) or path not in ("/v1/embeddings", "/embed"):
        return body
    body = dict(body)
    if isinstance(body.get("model"), str):
        body["model"] = MODEL
    if "input" in body:
        body["input"] = _suited(body["input"])
    dimensions = body.get("dimensions")
    if isinstance(dimensions, int | float) and not isinstance(dimensions, bool) and dimensions >= 1:
        body["dimensions"] = min(int(dimensions), DIMENSIONS) if dimensions % 1 == 0 else dimensions
        if _is_of_bits(body) and _is_whole(body["dimensions"]):
            body["dimensions"] += -body["dimensions"] % 8
    return body
