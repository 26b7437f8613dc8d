"""A highlight, and the vector that it gets later."""

from datetime import timedelta
from random import uniform
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models.functions import MD5
from django.utils import timezone
from pgvector.django import CosineDistance, HnswIndex, VectorField

DIMENSIONS = 384
MOST_ATTEMPTS = 8


class HighlightQuerySet(models.QuerySet):
    def seen_by(self, user, scope: str) -> Self:
        """Return what a user may find: "mine", or "all", without what others keep private."""
        mine = models.Q(owner=user)
        return self.filter(mine if scope == "mine" else mine | models.Q(is_private=False))

    def due(self) -> Self:
        """Return what has no embedding yet and may be tried now."""
        return self.filter(
            embedding=None, attempts__lt=MOST_ATTEMPTS, next_attempt_at__lte=timezone.now()
        )

    def near(self, vector, threshold: float) -> Self:
        """Return what is at least so similar, nearest first. The database computes the cosine."""
        distance = CosineDistance("embedding", vector)
        near = self.exclude(embedding=None).annotate(distance=distance)
        return near.filter(distance__lte=1 - threshold).order_by("distance")


class Highlight(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    source = models.CharField(max_length=200)
    text = models.TextField()
    is_private = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    embedding = VectorField(dimensions=DIMENSIONS, null=True, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    failure = models.TextField(blank=True)

    objects = HighlightQuerySet.as_manager()

    class Meta:
        constraints = [
            # The same import twice makes no second row.
            models.UniqueConstraint("owner", "source", MD5("text"), name="imported_once")
        ]
        indexes = [
            HnswIndex(
                name="by_cosine",
                fields=["embedding"],
                opclasses=["vector_cosine_ops"],
                m=16,
                ef_construction=64,
            ),
            models.Index(
                name="without_embedding",
                fields=["next_attempt_at"],
                condition=models.Q(embedding=None),
            ),
        ]

    def failed(self, reason: str, *, for_good: bool = False) -> None:
        """Note a failure: the next try is after 2, 4, 8, ... seconds, with jitter, or never."""
        self.attempts = MOST_ATTEMPTS if for_good else self.attempts + 1
        pause_s = min(2**self.attempts, 300) * uniform(0.5, 1)
        self.next_attempt_at = timezone.now() + timedelta(seconds=pause_s)
        self.failure = reason
        self.save(update_fields=["attempts", "next_attempt_at", "failure"])
