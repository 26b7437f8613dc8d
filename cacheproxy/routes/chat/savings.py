"""What hits saved: tokens, the upstream's time, and money by a table of prices."""

from collections.abc import Mapping

from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.settings.sections import PriceSettings
from cacheproxy.telemetry.metrics import Metrics

_TOKENS = 1_000_000
"""To which prices are given."""


class Savings:
    """Counts what each hit saved.

    Attributes:
        prices: of a million tokens, by model.
    """

    def __init__(self, prices: Mapping[str, PriceSettings], metrics: Metrics) -> None:
        self.prices = prices
        self._tokens = metrics.saved_tokens
        self._seconds = metrics.saved_seconds
        self._cost = metrics.saved_cost
        self._tallies = metrics.tallies

    def served(self, record: CompletionRecord, label: str) -> None:
        """Count a hit under a model's label. Where no usage was told, no tokens are counted."""
        tally = self._tallies.of(label, record.namespace_id)
        self._seconds.labels(label).inc(record.took_s)
        tally.saved_s += record.took_s
        if not record.has_usage:
            return
        self._tokens.labels(label, "prompt").inc(record.prompt_tokens)
        self._tokens.labels(label, "completion").inc(record.completion_tokens)
        tally.saved_tokens += record.prompt_tokens + record.completion_tokens
        if price := self.prices.get(record.model):
            cost = record.prompt_tokens * price.prompt + record.completion_tokens * price.completion
            self._cost.labels(label).inc(cost / _TOKENS)
            tally.saved_cost += cost / _TOKENS
