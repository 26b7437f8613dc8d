"""Which model's texts the threads take next: every model that has work gets equal shares of tokens.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) between models, as `queue` has it between the
requests for one model: the two make a hierarchy. A model that was idle is next at once, but earns
nothing by having been idle. Pure: no I/O, no clock.
"""

from collections.abc import Iterable


class Shares:
    """The virtual time of models, which are numbered from 0; its owner serialises all calls."""

    def __init__(self) -> None:
        self._finishes: dict[int, float] = {}
        self._virtual_time = 0.0

    def next(self, waiting: Iterable[int]) -> int:
        """Return the model whose turn it is, of those that have texts waiting (at least one)."""
        return min(waiting, key=lambda model: (self._start_of(model), model))

    def charge(self, model: int, tokens: int) -> None:
        """Record that texts of this many tokens were taken from a model whose turn it was."""
        self._virtual_time = start = self._start_of(model)
        self._finishes[model] = start + tokens

    def _start_of(self, model: int) -> float:
        return max(self._virtual_time, self._finishes.get(model, 0.0))
