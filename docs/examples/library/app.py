"""The library's HTTP API: uvicorn app:app --port 8001"""

import os
import threading

import apsw
import openai
from database import connect
from embedding import embed
from searching import related, search
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_threads = threading.local()


def database() -> apsw.Connection:
    """Return this thread's connection. Starlette runs plain functions in a pool of threads."""
    if not hasattr(_threads, "db"):
        _threads.db = connect(os.environ.get("LIBRARY", "library.sqlite"))
    return _threads.db


def limit_of(request: Request) -> int:
    try:
        limit = int(request.query_params.get("limit", 10))
    except ValueError:
        limit = 0
    if not 1 <= limit <= 50:
        raise HTTPException(400, "limit is a number from 1 to 50")
    return limit


def find(request: Request) -> JSONResponse:
    """GET /search?q=...: without the proxy, by words alone."""
    query = request.query_params.get("q", "").strip()
    if not query:
        raise HTTPException(400, "q is what to search for")
    limit = limit_of(request)
    try:
        vector = embed([query], patient=False)[0].tobytes()
    except openai.OpenAIError:
        vector = None
    results = search(database(), query, vector, limit)
    return JSONResponse({"results": results, "by_words_alone": vector is None})


def find_related(request: Request) -> JSONResponse:
    """GET /chunks/ID/related"""
    try:
        results = related(database(), request.path_params["chunk"], limit_of(request))
    except LookupError:
        raise HTTPException(404, "there is no such chunk") from None
    return JSONResponse({"results": results})


def opened(request: Request) -> JSONResponse:
    """POST /documents/ID/opened: a reader opened it."""
    sql = "UPDATE documents SET opened = opened + 1 WHERE id = ? RETURNING opened"
    count = database().execute(sql, (request.path_params["document"],)).get
    if count is None:
        raise HTTPException(404, "there is no such document")
    return JSONResponse({"opened": count})


async def failed(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code)


app = Starlette(
    routes=[
        Route("/search", find),
        Route("/chunks/{chunk:int}/related", find_related),
        Route("/documents/{document:int}/opened", opened, methods=["POST"]),
    ],
    exception_handlers={HTTPException: failed},
)
