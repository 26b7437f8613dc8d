"""Canaries: for a share of a model's callers another model answers in its place.

The share is one of namespaces, chosen by a hash, so that a caller never gets vectors of two models
for one index, and a larger share keeps those that had the canary already. Tiers, entries and
thresholds are the other model's own, as they are for whoever asks for it by its name.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cacheproxy.errors import ConfigError
from cacheproxy.settings.sections import CanarySettings
from cacheproxy.telemetry.loop_counters import LoopObservations
from cacheproxy.telemetry.rollout_metrics import RolloutMetrics

Name = Literal["canary", "stable"]


class Variant:
    """A model or its canary, as the metrics tell of it; belongs to the event loop."""

    __slots__ = ("_durations", "_labels", "_metrics")

    def __init__(self, metrics: RolloutMetrics, model: str, name: Name) -> None:
        self._metrics = metrics
        self._labels = (model, name)
        self._durations: dict[str, LoopObservations] = {}

    def answered(self, status: int, outcome: str, total_s: float) -> None:
        """Count an answer, and the seconds that it took."""
        self._metrics.variant_requests.labels(*self._labels, str(status)).inc()
        durations = self._durations.get(outcome)
        if durations is None:
            durations = self._metrics.variant_duration.labels(*self._labels, outcome)
            self._durations[outcome] = durations
        durations.observe(total_s)

    def failed(self, status: str) -> None:
        """Count a request that got an error."""
        self._metrics.variant_requests.labels(*self._labels, status).inc()


class Choice(NamedTuple):
    """Which model answers, and what counts it."""

    model: str
    variant: Variant


@dataclass(frozen=True, slots=True)
class _Canary:
    stable: Choice
    canary: Choice
    percent: float


class Canaries:
    """The models that have a canary; the settings change while requests are served."""

    def __init__(
        self, metrics: RolloutMetrics, items: Sequence[Mapping[str, str]], *, has_chat: bool
    ) -> None:
        """Have none yet.

        Args:
            metrics: counts the variants.
            items: for each kind of items, the name of the model behind each name and alias.
            has_chat: whether upstreams are asked for other models.
        """
        self._metrics = metrics
        self._items = items
        self._has_chat = has_chat
        self._settings: Mapping[str, CanarySettings] = {}
        self._canaries: dict[str, _Canary] = {}
        self._forgetting: list[Callable[[], None]] = []

    def forget_by(self, forget: Callable[[], None]) -> None:
        """Have an endpoint forget who answered what, whenever canaries change."""
        self._forgetting.append(forget)

    def prepare(self, settings: Mapping[str, CanarySettings]) -> Callable[[], None]:
        """Return what makes these the canaries.

        Raises:
            ConfigError: a model is not served, or of another kind than its canary.
        """
        canaries = {}
        for name, given in settings.items():
            model, canary = self._same_kind(name, given.model)
            canaries[model] = _Canary(
                Choice(model, Variant(self._metrics, model, "stable")),
                Choice(canary, Variant(self._metrics, model, "canary")),
                given.percent,
            )

        def commit() -> None:
            if settings != self._settings:
                self._settings, self._canaries = settings, canaries
                for forget in self._forgetting:
                    forget()

        return commit

    def choose(self, model: str, namespace_id: str, wanted: Name | None) -> Choice | None:
        """Return who answers for a model in a namespace; None if the model has no canary.

        `model` is the model's own name, `wanted` what the request asks for.
        """
        if not self._canaries or (found := self._canaries.get(model)) is None:
            return None
        if wanted is None:
            wanted = "canary" if share_of(model, namespace_id) < found.percent else "stable"
        return found.canary if wanted == "canary" else found.stable

    def _same_kind(self, name: str, canary: str) -> tuple[str, str]:
        """Return the models' own names; raises `ConfigError`."""
        kinds = [kind for kind in self._items if name in kind]
        of_canary = [kind for kind in self._items if canary in kind]
        if not kinds and not of_canary:
            if not self._has_chat:
                raise ConfigError(f"canary.{name}: there is no upstream for {name} and {canary}")
            one, other = name, canary
        else:
            both = next((kind for kind in kinds if canary in kind), None)
            if both is None:
                raise ConfigError(
                    f"canary.{name}: {name} and {canary} have to be served here, both for "
                    "embeddings or both for scores"
                )
            one, other = both[name], both[canary]
        if one == other:
            raise ConfigError(f"canary.{name}: {canary} is the same model")
        return one, other


def share_of(model: str, namespace_id: str) -> float:
    """Return where a namespace stands among all for a model, from 0 to less than 100."""
    digest = hashlib.sha256(f"{model}\0{namespace_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 * 100
