"""cacheproxy that counts nothing, to see what counting costs: `python -m loadtest.unmetered`."""

from typing import Any

from prometheus_client import Counter, Histogram

from cacheproxy.cli import main
from cacheproxy.counting import LoopCount, LoopObservations


def _count_nothing(*_: Any) -> None:
    return None


if __name__ == "__main__":
    for counting in (LoopCount, Counter):
        counting.inc = _count_nothing  # type: ignore[assignment,method-assign]
    for observing in (LoopObservations, Histogram):
        observing.observe = _count_nothing  # type: ignore[assignment,method-assign]
    main()
