"""The chat models that upstreams have answered for, a bounded number of them."""

from collections.abc import Callable, Iterable

from cacheproxy.routes.chat.likeness import Likeness

_MODELS = 64
"""Models with metrics and a semantic tier of their own; all others are one, and exact-only."""


class ChatModels:
    """What is known of each model."""

    def __init__(
        self, configured: Iterable[str], likeness_of: Callable[[str], Likeness] | None
    ) -> None:
        """Know the configured ones; `likeness_of` makes a model's semantic tier, if it has one."""
        self._named = set(configured)
        self._likeness_of = likeness_of
        self._likenesses: dict[str, Likeness] = {}

    @property
    def have_likeness(self) -> bool:
        """Whether models have a semantic tier."""
        return self._likeness_of is not None

    def label_of(self, model: str) -> str:
        """Return the name under which metrics count a model, one that clients cannot make up."""
        return model if model in self._named else "other"

    def likeness_of(self, model: str) -> Likeness | None:
        """Return the model's semantic tier, once it has one."""
        return self._likenesses.get(model)

    def answered(self, model: str) -> Likeness | None:
        """Take note that an upstream has answered for a model; return its semantic tier."""
        if model not in self._named and len(self._named) < _MODELS:
            self._named.add(model)
        likeness = self._likenesses.get(model)
        if likeness is None and self._likeness_of is not None and model in self._named:
            likeness = self._likenesses[model] = self._likeness_of(model)
        return likeness
