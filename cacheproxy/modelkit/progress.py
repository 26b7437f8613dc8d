"""What long work tells its user on standard error: bars on a terminal, a line a step elsewhere."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def say(line: str) -> None:
    """Print one line."""
    print(line, file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Return whether standard error is a terminal, where bars may be drawn."""
    return sys.stderr.isatty()


def steps(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items, with a bar on a terminal and one line elsewhere."""
    if not on_terminal():
        say(what)
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=what, total=total, file=sys.stderr)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Give a function that is told a rising count; it is shown on a terminal, and not elsewhere."""
    if not on_terminal():
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(desc=what, file=sys.stderr) as bar:
        yield lambda count: bar.update(count - bar.n)
