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


_EMBEDDING = (
    *("/v1/embeddings", "/embed", "/", "/similarity", "/tokenize"),
    *("/api/embed", "/api/embeddings", "/api/show", "/v1/embed", "/v2/embed"),
)


def _is_whole(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0


def _is_of_bits(body):
    said = [body.get(field) for field in ("output_dtype", "embedding_type", "embedding_types")]
    named = [one for each in said for one in (each if isinstance(each, list) else [each])]
    return "binary" in named or "ubinary" in named


@schemathesis.hook
def filter_headers(context, headers):
    """Leave out lists of nothing: no schema says that empty elements are ignored (RFC 9110)."""
    tags = (headers or {}).get("X-Cacheproxy-Tags", "tag")
    given = tags if isinstance(tags, list) else [tags]
    return any(str(each).strip(" \t,") for each in given)


@schemathesis.hook
def map_body(context, body):
    path = context.operation.path
    if isinstance(body, dict) and path.endswith("/rerank"):
        # Schemas take 2.0 as a whole number; nobody writes counts like that, and msgspec does not.
        return {name: int(each) if _is_whole(each) else each for name, each in body.items()}
    if not isinstance(body, dict) or path not in _EMBEDDING:
        return body
    body = dict(body)
    if body.get("model") and isinstance(body["model"], str):
        body["model"] = MODEL
    if "input" in body:
        body["input"] = _suited(body["input"])
    for name in ("dimensions", "output_dimension"):  # the latter is Cohere's
        given = body.get(name)
        if isinstance(given, int | float) and not isinstance(given, bool) and given >= 1:
            body[name] = min(int(given), DIMENSIONS) if given % 1 == 0 else given
            if _is_of_bits(body) and _is_whole(body[name]):
                body[name] += -body[name] % 8
    return body
