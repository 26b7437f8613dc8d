"""The HTTP API. Callers send the token that `manage.py token NAME` printed as a bearer token."""

import json
from functools import wraps

import openai
from django.contrib.auth import get_user_model
from django.core import signing
from django.db.models import Count, Q
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET, require_POST

from .embedding import embed
from .models import MOST_ATTEMPTS, Highlight


class BadInput(Exception):
    """What the caller sent cannot be used."""


def for_users(view):
    """Have a view called with the user whose token came, and with errors as JSON."""

    @wraps(view)
    def wrapped(request: HttpRequest, **more) -> JsonResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            pk = signing.loads(token, salt="token")
            request.user = get_user_model().objects.get(pk=pk, is_active=True)
        except (signing.BadSignature, get_user_model().DoesNotExist):
            return JsonResponse({"error": "a token is needed"}, status=401)
        try:
            return view(request, **more)
        except BadInput as error:
            return JsonResponse({"error": str(error)}, status=400)

    return wrapped


@require_POST
@for_users
def import_highlights(request: HttpRequest) -> JsonResponse:
    """Keep a list of {"source", "text", "private"}; the worker embeds them afterwards."""
    try:
        rows = [
            Highlight(
                owner=request.user,
                source=str(one["source"])[:200],
                text=str(one["text"]),
                is_private=bool(one.get("private", False)),
            )
            for one in json.loads(request.body)
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadInput("send a list of objects with source and text") from None
    mine = Highlight.objects.filter(owner=request.user)
    before = mine.count()
    Highlight.objects.bulk_create(rows, batch_size=1_000, ignore_conflicts=True)
    return JsonResponse({"imported": mine.count() - before}, status=202)


@require_GET
@for_users
def embedding_status(request: HttpRequest) -> JsonResponse:
    """Count the user's highlights by how far their embeddings are."""
    missing = Q(embedding=None)
    counts = Highlight.objects.filter(owner=request.user).aggregate(
        total=Count("pk"),
        embedded=Count("pk", filter=~missing),
        pending=Count("pk", filter=missing & Q(attempts__lt=MOST_ATTEMPTS)),
        failed=Count("pk", filter=missing & Q(attempts__gte=MOST_ATTEMPTS)),
    )
    return JsonResponse(counts)


@require_GET
@for_users
def search(request: HttpRequest) -> JsonResponse:
    """Find highlights by what they mean: ?q=...&scope=mine|all&threshold=0.3&limit=20"""
    query = request.GET.get("q", "").strip()
    if not query:
        raise BadInput("q is what to search for")
    options = _options(request)
    try:
        [vector] = embed([query], timeout_s=2)
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        raise BadInput(str(error)) from error
    except openai.OpenAIError:
        return JsonResponse({"error": "no embedding to be had now"}, status=503)
    return _found(request, vector, *options)


@require_GET
@for_users
def similar(request: HttpRequest, pk: int) -> JsonResponse:
    """Find highlights that are like one; nothing is embedded for that."""
    options = _options(request)
    given = Highlight.objects.seen_by(request.user, "all").filter(pk=pk).first()
    if given is None:
        return JsonResponse({"error": "there is no such highlight"}, status=404)
    if given.embedding is None:
        return JsonResponse({"error": "it is not embedded yet"}, status=409)
    return _found(request, given.embedding, *options, without=pk)


def _options(request: HttpRequest) -> tuple[str, float, int]:
    scope = request.GET.get("scope", "mine")
    try:
        threshold = float(request.GET.get("threshold", 0.3))
        limit = int(request.GET.get("limit", 20))
    except ValueError:
        raise BadInput("threshold and limit are numbers") from None
    if scope not in ("mine", "all") or not -1 <= threshold <= 1 or not 1 <= limit <= 100:
        raise BadInput("scope is mine or all, threshold -1 to 1, limit 1 to 100")
    return scope, threshold, limit


def _found(
    request: HttpRequest, vector, scope: str, threshold: float, limit: int, without: int = 0
) -> JsonResponse:
    near = Highlight.objects.seen_by(request.user, scope).near(vector, threshold)
    rows = near.exclude(pk=without)[:limit] if without else near[:limit]
    results = [
        {"id": row.pk, "source": row.source, "text": row.text, "similarity": 1 - row.distance}
        for row in rows
    ]
    return JsonResponse({"results": results})
