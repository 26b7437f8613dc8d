"""Where in a settings file something stands, for the message about a mistake in it."""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\[{1,2}([^\[\]]+)\]")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the number of the line, from 1, that sets what is at a path or contains it.

    None if the file sets nothing of it. TOML is read only as far as tables and keys go: a line of a
    text over several lines that looks like a key may be taken for one.
    """
    table: list[str] = []
    best, best_depth = None, 0
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        key, equals, _ = line.partition("=")
        if header := _HEADER.match(line):
            place = table = _parts(header[1])
        elif equals and not line.startswith("#"):
            place = [*table, *_parts(key)]
        else:
            continue
        if best_depth < len(place) and list(path[: len(place)]) == place:
            best, best_depth = number, len(place)
    return best


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]
