"""The models that upstreams have answered for, a bounded number of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cacheproxy.routes.chat.likeness import Likeness
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.dialects.completion import Completion
from cacheproxy.routes.judging.costs import Costs
from cacheproxy.routes.judging.evidence import Evidence

_MODELS = 64
"""Models with metrics and a semantic tier of their own. Further models share the label `other` and
have no semantic tier."""


@dataclass(frozen=True, slots=True)
class ModelLikeness:
    """The semantic tier of one model.

    Attributes:
        tier: what is near a question.
        evidence: how thresholds are earned; None where an operator has set one.
        costs: of the model's requests.
    """

    tier: Likeness
    evidence: Evidence | None
    costs: Costs

    def is_open(self, namespace_id: str) -> bool:
        """Return whether anything may be served in a namespace at the moment."""
        return self.tier.is_open(namespace_id)

    def cost_of(self, completion: Completion, record: CompletionRecord) -> float:
        """Return what an answer has cost; tokens are estimated where they were not counted."""
        if completion.has_usage:
            tokens = completion.prompt_tokens, completion.completion_tokens
        else:
            tokens = len(record.question) // 4, len(completion.text) // 4
        return self.costs.of(record.model, *tokens)


class ChatModels:
    """What is known of each model."""

    def __init__(
        self, configured: Iterable[str], likeness_of: Callable[[str], ModelLikeness] | None
    ) -> None:
        """Know the configured ones; `likeness_of` makes a model's semantic tier, if it has one."""
        self._named = set(configured)
        self._likeness_of = likeness_of
        self._likenesses: dict[str, ModelLikeness] = {}

    def renew(
        self, configured: Iterable[str], likeness_of: Callable[[str], ModelLikeness] | None
    ) -> None:
        """Know these, too, and make the semantic tiers that there are anew, or drop them."""
        self._named |= set(configured)
        self._likeness_of = likeness_of
        self._likenesses = (
            {} if likeness_of is None else {model: likeness_of(model) for model in self._likenesses}
        )

    @property
    def have_likeness(self) -> bool:
        """Whether models have a semantic tier."""
        return self._likeness_of is not None

    def label_of(self, model: str) -> str:
        """Return the label of a model in the metrics, which clients cannot make up."""
        return model if model in self._named else "other"

    def likeness_of(self, model: str) -> ModelLikeness | None:
        """Return the model's semantic tier, once it has one."""
        return self._likenesses.get(model)

    def likenesses(self) -> Iterable[ModelLikeness]:
        """Return all semantic tiers."""
        return self._likenesses.values()

    def answered(self, model: str) -> ModelLikeness | None:
        """Take note that an upstream has answered for a model; return its semantic tier."""
        if model not in self._named and len(self._named) < _MODELS:
            self._named.add(model)
        likeness = self._likenesses.get(model)
        if likeness is None and self._likeness_of is not None and model in self._named:
            likeness = self._likenesses[model] = self._likeness_of(model)
        return likeness
