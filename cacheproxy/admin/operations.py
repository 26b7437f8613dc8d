"""What the admin listener can be asked for, as its OpenAPI document describes it."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cacheproxy.admin.entries import FindRequest, FoundEntries
from cacheproxy.admin.namespaces import Namespaces
from cacheproxy.admin.reloading import Reloaded
from cacheproxy.admin.report import ServerFigures, Target, Thresholds
from cacheproxy.admin.workers import LatestWrongHits, TailedRequests, Workers
from cacheproxy.api.openapi import About
from cacheproxy.api.operation import Content, Operation, Parameter, Reply
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.telemetry.history import Recent


class PurgeRequest(Target, kw_only=True):
    """A namespace, and which of its entries to purge: exactly one of key, text, tag and all."""

    tenant: Annotated[str, Meta(description="The namespace's tenant; `default` without API keys.")]
    namespace: Annotated[str, Meta(description="The namespace's name, such as `default`.")]


_QUERY_HAS_TEXT = [
    {"properties": {"query": {"type": "null"}}},
    {"required": ["text"], "properties": {"text": {"type": "string"}}},
]


def _one_of(kinds: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()
    ]


# `Target.scopes` checks this: exactly one thing is named, and a query has a text.
NamesOne = Annotated[
    PurgeRequest,
    Meta(
        extra_json_schema={
            "oneOf": [
                *_one_of(dict.fromkeys(("key", "text", "tag"), "string")),
                {"required": ["all"], "properties": {"all": {"const": True}}},
            ],
            "anyOf": _QUERY_HAS_TEXT,
        }
    ),
]

# So does `FindRequest.kind`.
FindsOne = Annotated[
    FindRequest,
    Meta(
        extra_json_schema={
            "oneOf": _one_of({"key": "string", "text": "string", "request": "object"}),
            "anyOf": _QUERY_HAS_TEXT,
        }
    ),
]


class PurgeResponse(msgspec.Struct):
    """The result of a purge."""

    removed: Annotated[int, Meta(description="How many entries were removed.")]


ADMIN = About(
    "cacheproxy, admin listener",
    "Figures, purges and reloads, for operators. It has a port of its own (`admin.port`).",
    "The setting `admin.token`, or an API key with the scope `admin` (to purge the entries of its "
    "own tenant: `purge`). Without any of these, only clients on the same machine are served.",
)

_ERRORS = refusals(401, 403, 500)

_ALL_WORKERS = refusals(503, because={503: "The other workers do not answer."})

_SINCE = Parameter(
    "since", float, "Unix time in seconds: only samples taken after it are returned.", example=0
)

STATS = Operation(
    method="GET",
    path="/admin/stats",
    id="getStats",
    tag="ServerFigures",
    summary="Get the server's figures",
    description="The contents of the tiers and the store, and the state of the semantic tier.",
    replies={
        200: Reply("The figures.", (Content(ServerFigures),)),
        **_ERRORS,
        **refusals(503, because={503: "The store did not answer."}),
    },
)

THRESHOLDS = Operation(
    method="GET",
    path="/admin/thresholds",
    id="getThresholds",
    tag="ServerFigures",
    summary="Get the semantic tier's thresholds",
    description="""
    By model and namespace: the evidence, its bound on the error, what it permits. Of several
    workers, the one with the most labels tells the state of a namespace; hits and savings are sums.
    """,
    replies={200: Reply("The thresholds.", (Content(Thresholds),)), **_ERRORS, **_ALL_WORKERS},
)

LIVE = Operation(
    method="GET",
    path="/admin/live",
    id="getLive",
    tag="ServerFigures",
    summary="Get the samples of the last ten minutes",
    description="Counters and gauges of all workers, every two seconds, for the page.",
    query=(_SINCE,),
    replies={
        200: Reply("The samples.", (Content(Recent),)),
        **_ERRORS,
        **refusals(400, 503, because={503: "The other workers' metrics are not available."}),
    },
)

PURGE = Operation(
    method="POST",
    path="/admin/purge",
    id="purge",
    tag="Purges",
    summary="Remove entries from all servers on the store",
    description="The response is sent when all are removed. A failed purge can be repeated.",
    headers=(REQUEST_ID,),
    body=Content(
        NamesOne,
        {
            "By tag": {"tenant": "default", "namespace": "default", "tag": "release:1.2"},
            "All": {"tenant": "default", "namespace": "default", "all": True},
        },
    ),
    replies={
        200: Reply(
            "The entries were removed.", (Content(PurgeResponse, {"Gone": {"removed": 3}}),)
        ),
        **_ERRORS,
        **refusals(
            *(400, 413, 415, 503),
            because={503: "The store did not answer; the purge must be repeated."},
        ),
    },
)

NAMESPACES = Operation(
    method="GET",
    path="/admin/namespaces",
    id="getNamespaces",
    tag="ServerFigures",
    summary="Get the traffic and savings of namespaces",
    description="By model and namespace, of all workers, from the same counters as `/metrics`.",
    replies={200: Reply("The namespaces.", (Content(Namespaces),)), **_ERRORS, **_ALL_WORKERS},
)

WORKERS = Operation(
    method="GET",
    path="/admin/workers",
    id="getWorkers",
    tag="ServerFigures",
    summary="Get the figures of each worker",
    description="One sample of each worker that answers within a second.",
    replies={200: Reply("The workers.", (Content(Workers),)), **_ERRORS, **_ALL_WORKERS},
)

REQUESTS = Operation(
    method="GET",
    path="/admin/requests",
    id="getRequests",
    tag="ServerFigures",
    summary="Get a sampled tail of requests",
    description="""
    Of all requests and of the failed ones, the first of each tenth of a second in each worker, up
    to 100 of each worker. They carry no texts.
    """,
    replies={200: Reply("The requests.", (Content(TailedRequests),)), **_ERRORS, **_ALL_WORKERS},
)

WRONG_HITS = Operation(
    method="GET",
    path="/admin/wrong-hits",
    id="getWrongHits",
    tag="ServerFigures",
    summary="Get the last semantic hits that were wrong",
    description="By the ids of the entries, up to 200 of each worker since its start.",
    replies={200: Reply("The hits.", (Content(LatestWrongHits),)), **_ERRORS, **_ALL_WORKERS},
)

FIND = Operation(
    method="POST",
    path="/admin/find",
    id="findEntries",
    tag="Entries",
    summary="Find an entry by its text, its request or its key",
    description="""
    Tells what is known of the entry, and where it is. A completion is found by the whole body of
    its request, as every field is a part of its key. The log of admin actions has a line for it.
    """,
    headers=(REQUEST_ID,),
    body=Content(
        FindsOne,
        {
            "By text": {"tenant": "default", "namespace": "default", "text": "What is a cache?"},
            "By request": {
                "tenant": "default",
                "namespace": "default",
                "request": {
                    "model": "gpt-5",
                    "temperature": 0,
                    "messages": [{"role": "user", "content": "What is a cache?"}],
                },
            },
        },
    ),
    replies={
        200: Reply("What was found; no entries if nothing.", (Content(FoundEntries),)),
        **_ERRORS,
        **refusals(
            *(400, 404, 413, 415, 503),
            because={
                404: "No upstream has the model.",
                503: "The store or the other workers did not answer.",
            },
        ),
    },
)

RELOAD = Operation(
    method="POST",
    path="/admin/reload",
    id="reload",
    tag="Settings",
    summary="Take the settings as they are now",
    description="Reads the settings file again, and the file of API keys. All workers take what "
    "has changed, or none does; settings that need a restart stay what they are and are named.",
    headers=(REQUEST_ID,),
    replies={
        200: Reply(
            "The settings were taken.",
            (
                Content(
                    Reloaded,
                    {
                        "A longer life": {
                            "changed": ["cache.ttl_s"],
                            "needs_restart": [],
                            "settings_hash": "0123456789ab",
                        }
                    },
                ),
            ),
        ),
        **_ERRORS,
        **refusals(
            *(422, 503),
            because={
                422: "The settings are invalid, as the message says; nothing has changed.",
                503: "The supervisor of the workers did not answer.",
            },
        ),
    },
)
