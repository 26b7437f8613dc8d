"""The HTTP API reference: every operation of both listeners, from their OpenAPI documents."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tables import code, table

import cacheproxy.admin
import cacheproxy.api
from cacheproxy.admin.operations import ADMIN
from cacheproxy.api.openapi import PUBLIC, declared, document

_INTRO = """\
# HTTP API

This page is made from the OpenAPI 3.1 documents of both listeners. A running server serves its own
at `GET /openapi.json`, and `cacheproxy openapi` prints that of all routes without a server.
[Requests and answers](../api.md) is the overview.

"""

Schema = Mapping[str, Any]


def page() -> str:
    """Return the page's Markdown."""
    public = document(PUBLIC, declared(cacheproxy.api))
    admin = document(ADMIN, declared(cacheproxy.admin))
    parts = [_INTRO, "## The public listener\n\n", _Listener(public).text()]
    parts += ["## The admin listener\n\n", f"{admin['info']['description']}\n\n"]
    parts.append(_Listener(admin).text())
    return "".join(parts).rstrip() + "\n"


class _Listener:
    """One document, told operation by operation."""

    def __init__(self, document: Schema) -> None:
        self._paths = document["paths"]
        self._schemas = document.get("components", {}).get("schemas", {})

    def text(self) -> str:
        return "".join(
            self._operation(method.upper(), path, operation)
            for path, operations in self._paths.items()
            for method, operation in operations.items()
        )

    def _operation(self, method: str, path: str, operation: Schema) -> str:
        parts = [f"### `{method} {path}`\n\n", f"{operation['summary']}.\n\n"]
        if operation.get("description"):
            parts.append(f"{operation['description'].strip()}\n\n")
        if parameters := operation.get("parameters"):
            rows = [
                (code(each["name"]), each["in"], self._type(each["schema"]), _line(each))
                for each in parameters
            ]
            parts.append(table(("parameter", "in", "type", "meaning"), rows))
        contents = operation.get("requestBody", {}).get("content", {})
        parts += map(self._body, contents.values())
        parts.append(self._replies(operation["responses"]))
        return "".join(parts)

    def _body(self, content: Schema) -> str:
        schema = content.get("schema", {})
        rows = list(self._fields(schema))
        text = "Request body:\n\n" + table(("field", "type", "meaning"), rows) if rows else ""
        examples = content.get("examples", {})
        for example in list(examples.values())[:1]:
            if not isinstance(example["value"], str):
                text += f"```json\n{json.dumps(example['value'], ensure_ascii=False)}\n```\n\n"
        return text

    def _fields(self, schema: Schema) -> Iterable[tuple[str, str, str]]:
        schema = self._resolved(schema)
        for variant in schema.get("anyOf") or schema.get("oneOf") or [schema]:
            variant = self._resolved(variant)
            required = variant.get("required", ())
            for name, field in variant.get("properties", {}).items():
                needed = " (required)" if name in required else ""
                yield code(name), self._type(field) + needed, _line(field)

    def _replies(self, replies: Schema) -> str:
        rows = []
        for status, reply in replies.items():
            headers = ", ".join(code(name) for name in reply.get("headers", {}))
            kinds = ", ".join(
                self._type(content.get("schema", {})) or code(kind)
                for kind, content in reply.get("content", {}).items()
            )
            rows.append((status, kinds, headers, _line(reply)))
        return table(("status", "body", "headers", "meaning"), rows)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def _type(self, schema: Schema) -> str:
        if "$ref" in schema:
            return schema["$ref"].rpartition("/")[2]
        if "const" in schema:
            return code(json.dumps(schema["const"]))
        if "enum" in schema:
            return ", ".join(code(json.dumps(value)) for value in schema["enum"])
        arms = schema.get("anyOf") or schema.get("oneOf")
        if arms:
            return " or ".join(dict.fromkeys(filter(None, map(self._type, arms))))
        kind = schema.get("type", "")
        if kind == "array":
            return f"list of {self._type(schema.get('items', {})) or 'anything'}"
        return " or ".join(kind) if isinstance(kind, list) else kind


def _line(described: Schema) -> str:
    return described.get("description", "").replace("\n- ", "<br>• ").replace("\n", " ")
