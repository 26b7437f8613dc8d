"""Generates the OpenAPI 3.1 document from the operations that a listener serves.

Pure: operations in, a dict out. `operation` explains how to add a route. `declared` finds the
operations of a package without a server, for the command line and the documentation.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec

import cacheproxy
from cacheproxy.api.callers import API_KEY
from cacheproxy.api.operation import Content, Operation, Parameter, Reply

_REFERENCE = "#/components/schemas/{name}"

_SECURITY_SCHEME = "key"

_CONVERTER = re.compile(r":\w+}")
"""What Starlette has after a parameter's name in a path, and OpenAPI has not."""


@dataclass(frozen=True, slots=True)
class About:
    """A listener's document as a whole.

    Attributes:
        title: its name.
        description: Markdown.
        key: a description of the bearer token and where it comes from.
    """

    title: str
    description: str
    key: str


PUBLIC = About(
    "cacheproxy",
    "A semantic caching proxy in front of inference. It serves embeddings and chat completions to "
    "OpenAI clients from a cache with a bounded error rate, and computes what is not cached. Every "
    "error has OpenAI's format.",
    API_KEY,
)


def document(
    about: About, operations: Sequence[Operation], *, needs_key: bool | None = None
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the operations.

    `needs_key` says whether callers must send a key; None leaves it open, as it depends on the
    server's settings.
    """
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _describe(operation, schemas, needs_key)
        paths.setdefault(_CONVERTER.sub("}", operation.path), {})[operation.method.lower()] = (
            described
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "description": about.description,
            "version": cacheproxy.__version__,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        # Relative to the document's own address, so that it is also valid behind another host name.
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                _SECURITY_SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": about.key,
                }
            },
        },
    }


def declared(package: ModuleType) -> list[Operation]:
    """Return the operations that the modules of a package declare or use, ordered by path."""
    found: set[Operation] = set()
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        values = vars(import_module(module.name)).values()
        found.update(value for value in values if isinstance(value, Operation))
    return sorted(found, key=lambda each: (each.tag, each.path, each.method))


class _Schemas:
    """The JSON Schema of every type that the operations use; shared ones are components."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._types = list(_types_of(operations))
        schemas, components = msgspec.json.schema_components(self._types, ref_template=_REFERENCE)
        self._schemas = list(schemas)
        self.components = {name: _tidied(one) for name, one in sorted(components.items())}

    def of(self, kind: Any) -> Any:
        return _tidied(self._schemas[next(i for i, t in enumerate(self._types) if t is kind)])


def _types_of(operations: Iterable[Operation]) -> Iterable[Any]:
    for operation in operations:
        for parameter in (*operation.headers, *operation.query, *operation.path_parameters):
            yield parameter.type
        if operation.body is not None:
            yield operation.body.type
        for reply in operation.replies.values():
            yield from (content.type for content in reply.content)
            yield from (header.type for header in reply.headers)


def _tidied(schema: Any) -> Any:
    """Return a schema whose descriptions, taken from docstrings, are not indented."""
    if isinstance(schema, dict):
        return {
            name: inspect.cleandoc(value)
            if name == "description" and isinstance(value, str)
            else _tidied(value)
            for name, value in schema.items()
        }
    return [_tidied(value) for value in schema] if isinstance(schema, list) else schema


def _describe(operation: Operation, schemas: _Schemas, needs_key: bool | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": inspect.cleandoc(operation.description),
    }
    parameters = [
        {"name": parameter.name, "in": place, **_parameter(parameter, schemas)}
        for place, given in (
            ("path", operation.path_parameters),
            ("query", operation.query),
            ("header", operation.headers),
        )
        for parameter in given
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": _content((operation.body,), schemas),
        }
    described["responses"] = {
        str(status): _reply(reply, schemas) for status, reply in operation.replies.items()
    }
    described["security"] = _security(operation, needs_key)
    return described


def _security(operation: Operation, needs_key: bool | None) -> list[dict[str, list[str]]]:
    if not operation.takes_key or needs_key is False:
        return []
    with_key: dict[str, list[str]] = {_SECURITY_SCHEME: []}
    return [with_key] if needs_key else [with_key, {}]


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": inspect.cleandoc(reply.description)}
    if reply.headers:
        described["headers"] = {
            header.name: _parameter(header, schemas) for header in reply.headers
        }
    if reply.content:
        described["content"] = _content(reply.content, schemas)
    return described


def _parameter(parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": inspect.cleandoc(parameter.description),
        "schema": schemas.of(parameter.type),
    }
    if parameter.is_required:
        described["required"] = True
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _content(contents: Sequence[Content], schemas: _Schemas) -> dict[str, Any]:
    described = {}
    for content in contents:
        media: dict[str, Any] = {"schema": schemas.of(content.type)}
        if content.examples:
            media["examples"] = {
                title: {"value": value} for title, value in content.examples.items()
            }
        described[content.media_type] = media
    return described
