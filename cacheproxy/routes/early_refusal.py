"""Whether an overloaded server refuses a request before it tokenises and looks anything up.

A lookup costs up to a tenth of an inference (16 tokens; less for longer texts). While inference is
overloaded, lookups pay only if at least that share of texts is found; else they would take time
from the requests that were accepted.
"""

from collections.abc import Sequence

from cacheproxy.inference.engine import Engine
from cacheproxy.inference.input import Input, characters_of
from cacheproxy.inference.queue import Reservation
from cacheproxy.routes.exchange import Control

_LEAST_SHARE = 0.1

_WEIGHT = 0.02
"""Of one request in the running share of exact hits: about the last fifty count."""

_CHARACTERS = 4
"""Of one token of English text, or fewer: the estimate for text that is not tokenised yet."""


class EarlyRefusal:
    """Follows the share of texts that the exact tier finds; belongs to one route and model."""

    def __init__(self) -> None:
        self._share = 0.0

    def note(self, share: float) -> None:
        """Take the share of a request's texts, 0 to 1, that the exact tier found."""
        self._share += _WEIGHT * (share - self._share)

    def reserve(
        self, engine: Engine, inputs: Sequence[Input], control: Control
    ) -> Reservation | None:
        """Take a place in the queue where it is overloaded and lookups do not pay, else None.

        Raises:
            Overloaded: the queue takes no more.
        """
        lookups_pay = self._share >= _LEAST_SHARE and control.reads
        if lookups_pay or control.only_if_cached or not engine.is_overloaded:
            return None
        return engine.begin(_least_tokens(inputs))


def _least_tokens(inputs: Sequence[Input]) -> int:
    """Return a low estimate of the tokens in inputs that are not tokenised yet."""
    return sum(
        len(given) if isinstance(given, list) else characters_of(given) // _CHARACTERS + 1
        for given in inputs
    )
