"""An operation of the HTTP API: its path, its input, and all of its responses.

An endpoint's module declares its operations next to the code that answers them, with the msgspec
types that this code reads and writes.

To add a route, declare an `Operation` as a constant of that module, and enter it with its endpoint
in the table in `server/route_table.py` (for operators, in `admin/app.py`). Nothing else is needed:
the route (`Operation.route`) and the OpenAPI document (`openapi`) are made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.routing import Route

Status = int | Literal["default"]
"""Status of a response; "default" covers all that an operation does not name."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A header, of a request or of a response, or a parameter in a request's path or query.

    Attributes:
        name: its name as clients write it.
        type: the type that msgspec validates or that is written.
        description: one or more sentences of Markdown.
        example: a value, or None.
        is_required: whether every request or response has it.
    """

    name: str
    type: Any
    description: str
    example: Any = None
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """A body.

    Attributes:
        type: what msgspec validates, or what is written.
        examples: values by a short title.
        media_type: without parameters.
    """

    type: Any
    examples: Mapping[str, Any] = field(default_factory=dict)
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An operation's response with one status."""

    description: str
    content: tuple[Content, ...] = ()
    headers: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One method on one path.

    Attributes:
        method: the HTTP method.
        path: as Starlette writes it: `/v1/models/{id:path}`.
        id: a unique name in lower camel case; client generators name a function after it.
        tag: its section in the reference.
        summary: a few words.
        description: Markdown.
        replies: the responses by status.
        body: the request's body, or None.
        headers, query, path_parameters: the request's other inputs.
        takes_key: whether the listener's credentials are checked.
    """

    method: Method
    path: str
    id: str
    tag: str
    summary: str
    description: str
    replies: Mapping[Status, Reply]
    body: Content | None = None
    headers: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()
    path_parameters: tuple[Parameter, ...] = ()
    takes_key: bool = True

    def route(self, endpoint: Any) -> Route:
        """Return the route that passes this operation's requests to an endpoint."""
        return Route(self.path, endpoint, methods=[self.method])
