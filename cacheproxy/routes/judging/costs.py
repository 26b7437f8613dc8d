"""What requests cost, in one unit: money where every model has a price, else input tokens."""

from collections.abc import Mapping

from cacheproxy.settings.sections import PriceSettings
from cacheproxy.thresholds.judged.allowance import tokens_cost


class Costs:
    """The costs of some models that are compared with each other."""

    def __init__(self, prices: Mapping[str, PriceSettings], models: tuple[str, ...]) -> None:
        """Count in money if all of the models have a price."""
        is_priced = all(model in prices for model in models)
        self._prices = {model: prices[model] for model in models} if is_priced else {}

    def reprice(self, prices: Mapping[str, PriceSettings]) -> None:
        """Take new prices; the unit, and with it the price of a model without a new one, stays."""
        self._prices = {model: prices.get(model, price) for model, price in self._prices.items()}

    def of(self, model: str, input_tokens: float, output_tokens: float) -> float:
        """Return what a request costs; without prices an output token counts as four input ones."""
        price = self._prices.get(model)
        if price is None:
            return tokens_cost(input_tokens, output_tokens)
        return price.prompt * input_tokens + price.completion * output_tokens
