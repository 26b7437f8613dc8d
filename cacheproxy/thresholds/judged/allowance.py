"""What the proxy may spend on requests of its own: a share of what clients' requests cost.

Costs are in whatever unit the caller counts in, money or tokens. Where no price is known an output
token counts as four input tokens, as most price lists have it. A pure account.
"""

from collections import Counter
from typing import Literal

Purpose = Literal["label", "control", "sensitivity", "reference"]

OUTPUT_TOKENS = 4.0
"""What an output token costs, in input tokens, where no price is known."""

_SAVED_UP = 200
"""Requests of the usual cost whose share is kept for later; what is more is forgone."""


def tokens_cost(input_tokens: float, output_tokens: float) -> float:
    """Return what a request costs, in input tokens, where no price is known."""
    return input_tokens + OUTPUT_TOKENS * output_tokens


class Allowance:
    """One account.

    Attributes:
        requests, tokens, cost: what was spent, by purpose.
        clients_cost: what clients' requests have cost.
    """

    def __init__(self, learning_share: float = 0.10, open_share: float = 0.03) -> None:
        """Start with nothing; the shares are of clients' costs, 0 to spend nothing."""
        self.set_shares(learning_share, open_share)
        self._left = self._most = 0.0
        self.clients_cost = 0.0
        self._clients = 0
        self.requests: Counter[Purpose] = Counter()
        self.tokens: Counter[Purpose] = Counter()
        self.cost: dict[Purpose, float] = {}

    def set_shares(self, learning_share: float, open_share: float) -> None:
        """Earn by these shares from now on."""
        self._shares = {False: learning_share, True: open_share}

    def earn(self, cost: float, *, is_open: bool, part: float = 1.0) -> None:
        """Take what a client's request cost; `part` is how much of the share is wanted."""
        self._clients += 1
        self.clients_cost += cost
        share = self._shares[is_open]
        usual = self.clients_cost / self._clients
        self._most = _SAVED_UP * share * usual
        self._left = min(self._left + part * share * cost, self._most)

    @property
    def has_room(self) -> bool:
        """Whether a request may be made; it may cost more than is left, which is owed then."""
        return self._left > 0

    @property
    def fullness(self) -> float:
        """How much of what can be saved up is left, 0 to 1."""
        return max(0.0, self._left / self._most) if self._most > 0 else 0.0

    def spend(self, purpose: Purpose, cost: float, tokens: int = 0) -> None:
        """Take what a request of the proxy's own cost."""
        self._left -= cost
        self.requests[purpose] += 1
        self.tokens[purpose] += tokens
        self.cost[purpose] = self.cost.get(purpose, 0.0) + cost

    @property
    def spent(self) -> float:
        """All that was spent."""
        return sum(self.cost.values())
