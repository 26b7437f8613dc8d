"""Progress of long work on standard error: bars on a terminal, otherwise a line per step."""

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
    """Yield the items, with a bar on a terminal, otherwise with one line."""
    if not on_terminal():
        say(what)
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=what, total=total, file=sys.stderr)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes a rising count; it is displayed on a terminal only."""
    if not on_terminal():
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(desc=what, file=sys.stderr) as bar:
        yield lambda count: bar.update(count - bar.n)
