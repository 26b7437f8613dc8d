"""The OpenAPI document as a pure function, and that it tells what the parsers do."""

import json

import msgspec
import openapi_schema_validator
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

import cacheproxy.admin
import cacheproxy.api
from cacheproxy.admin.operations import ADMIN
from cacheproxy.api.control import CONTROL_HEADERS, parse_control
from cacheproxy.api.dialects.embed import EmbedDialect
from cacheproxy.api.dialects.openai import OpenAIDialect
from cacheproxy.api.dialects.rerank_forms import CohereDialect, JinaDialect, TeiDialect
from cacheproxy.api.openapi import PUBLIC, declared, document
from cacheproxy.api.operation import Content, Operation, Parameter, Reply
from cacheproxy.api.response import refusals
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import DEFAULT_CONTROL

PING = Operation(
    method="POST",
    path="/ping/{id}",
    id="ping",
    tag="Ping",
    summary="Ping",
    description="Pings.",
    path_parameters=(Parameter("id", str, "Which.", is_required=True),),
    query=(Parameter("n", int, "How often.", example=2),),
    body=Content(dict[str, int], {"One": {"a": 1}}),
    replies={200: Reply("Done.", (Content(list[int]),)), **refusals(401, 429)},
)


@pytest.mark.parametrize(
    ("about", "package"), [(PUBLIC, cacheproxy.api), (ADMIN, cacheproxy.admin)]
)
def test_the_document_of_all_declared_operations_is_valid(about, package):
    operations = declared(package)

    OpenAPIV31SpecValidator(document(about, operations)).validate()
    ids = [operation.id for operation in operations]
    assert len(set(ids)) == len(ids)


def test_an_operation_alone_makes_a_route_and_its_description():
    paths = document(PUBLIC, [PING])["paths"]
    route = PING.route(lambda _: None)

    assert (route.path, route.methods) == ("/ping/{id}", {"POST"})
    described = paths["/ping/{id}"]["post"]
    assert [(one["name"], one["in"]) for one in described["parameters"]] == [
        ("id", "path"),
        ("n", "query"),
    ]
    assert described["requestBody"]["content"]["application/json"]["examples"] == {
        "One": {"value": {"a": 1}}
    }
    assert set(described["responses"]) == {"200", "401", "429"}
    assert set(described["responses"]["429"]["headers"]) == {"X-Request-Id", "Retry-After"}


@pytest.mark.parametrize(
    ("needs_key", "security"),
    [(True, [{"key": []}]), (None, [{"key": []}, {}]), (False, [])],
)
def test_security_follows_the_servers_settings(needs_key, security):
    described = document(PUBLIC, [PING], needs_key=needs_key)["paths"]["/ping/{id}"]["post"]

    assert described["security"] == security


@pytest.mark.parametrize("parameter", CONTROL_HEADERS, ids=lambda one: one.name)
def test_the_example_of_every_control_header_is_understood(parameter):
    example = parameter.example
    text = ",".join(example) if isinstance(example, list) else str(example)

    assert parse_control({parameter.name.lower().encode(): text.encode()}) != DEFAULT_CONTROL


TEXTS = st.text(max_size=2)
IDS = st.integers(-1, 40_000)
INPUTS = st.none() | TEXTS | st.lists(TEXTS | IDS | st.lists(IDS, max_size=2), max_size=3)
OPTIONS = {
    "input_type": st.sampled_from(["query", "search_document", "poem", None]),
    "task": st.sampled_from(["retrieval.query", "query", None]),
    "prompt_name": st.sampled_from(["passage", "search_query", None]),
    "output_dtype": st.sampled_from(["int8", "base64", None]),
    "embedding_type": st.sampled_from(["ubinary", "base64", None]),
    "embedding_types": st.lists(st.sampled_from(["float", "int8", "int4"]), max_size=2) | st.none(),
}
EMBEDDINGS = st.fixed_dictionaries(
    {"input": INPUTS, "model": st.just("m") | st.none()},
    optional={
        **OPTIONS,
        "encoding_format": st.sampled_from(["float", "base64", "hex", None]),
        "dimensions": st.sampled_from([0, 1, 384, 1.5, "8", None]),
        "user": st.none() | TEXTS,
    },
)
EMBED = st.fixed_dictionaries(
    {},
    optional={
        **OPTIONS,
        "texts": INPUTS,
        "inputs": INPUTS,
        "model": st.just("m") | st.none(),
        "dimensions": st.sampled_from([0, 1, None]),
        "normalize": st.booleans() | st.none(),
        "truncate": st.booleans() | st.none(),
    },
)

DOCUMENTS = st.none() | st.lists(TEXTS | st.fixed_dictionaries({"text": TEXTS}), max_size=2)
COUNTS = st.sampled_from([-2, -1, 0, 1, 7, 1.5, None])
RERANK = st.fixed_dictionaries(
    {"query": TEXTS},
    optional={
        "documents": DOCUMENTS,
        "texts": DOCUMENTS,
        "model": st.just("m") | st.none(),
        "top_n": COUNTS,
        "max_tokens_per_doc": COUNTS,
        "truncate_prompt_tokens": COUNTS,
        "return_documents": st.booleans() | st.none(),
        "use_activation": st.booleans() | st.none(),
        "raw_scores": st.booleans() | st.none(),
        "truncate": st.booleans() | st.none(),
        "truncation_direction": st.sampled_from(["left", "Right", "up"]),
    },
)


def is_accepted(dialect, body) -> bool:
    try:
        dialect.parse(msgspec.json.encode(body))
    except BadRequest:
        return False
    return True


@pytest.fixture(scope="module")
def is_described():
    """Return a function that says whether the document allows a body on a path."""
    whole = json.loads(json.dumps(document(PUBLIC, declared(cacheproxy.api))))

    def allows(path: str, body) -> bool:
        request = whole["paths"][path]["post"]["requestBody"]
        schema = {
            **request["content"]["application/json"]["schema"],
            "components": whole["components"],
        }
        return openapi_schema_validator.OAS31Validator(schema).is_valid(body)

    return allows


@given(body=EMBEDDINGS)
def test_the_schema_of_embeddings_allows_exactly_what_is_parsed(is_described, body):
    assert is_described("/v1/embeddings", body) == is_accepted(OpenAIDialect(), body)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [("/v1/rerank", JinaDialect()), ("/v2/rerank", CohereDialect()), ("/rerank", TeiDialect())],
)
@given(body=RERANK)
def test_the_schemas_of_reranking_allow_exactly_what_is_parsed(is_described, path, dialect, body):
    assert is_described(path, body) == is_accepted(dialect, body)


@given(body=EMBED)
def test_the_schema_of_embed_allows_exactly_what_is_parsed(is_described, body):
    assert is_described("/embed", body) == is_accepted(EmbedDialect(), body)
