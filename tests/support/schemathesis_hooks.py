"""What a schema cannot know of the server under test, so that most generated requests get far.

A document of all servers does not hold one server's models, their vocabulary and dimensions.
"""

import schemathesis

MODEL, DIMENSIONS, VOCABULARY = "all-MiniLM-L6-v2", 384, 30_000


def _suited(value):
    """Return the same value with all whole numbers inside the vocabulary."""
    if isinstance(value, list):
        return [_suited(each) for each in value]
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    return int(value) % VOCABULARY if is_whole else value


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
    return body
