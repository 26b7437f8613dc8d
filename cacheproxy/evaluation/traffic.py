"""Traffic to replay: a log as it is, or requests drawn from a list of texts.

Drawn requests repeat as real ones do: a few texts often, most of them rarely (Zipf's law), some of
them with a slip of the finger or in other words around the question. Always the same for a seed.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cacheproxy.errors import ConfigError

_FIELDS = ("text", "input", "query", "prompt", "a")

EXPONENT = 0.8
"""Of Zipf's law; logs of search engines and of assistants lie between 0.6 and 1."""

_SLIPS = 0.15
_TWO_SLIPS = 0.3
_PHRASES = 0.1

_NEIGHBOURS = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i, key in enumerate(row)
}


@dataclass(frozen=True, slots=True)
class Row:
    """A text, and the group of texts that ask the same, if the file names one (`cluster`)."""

    text: str
    cluster: str | None = None


def read_texts(paths: Iterable[Path]) -> list[str]:
    """Return the texts of files, as `read_rows` does."""
    return [row.text for row in read_rows(paths)]


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of files, in their order: JSON objects or strings a line, or plain lines.

    Raises:
        ConfigError: a file cannot be read, or a line of JSON has no text.
    """
    rows: list[Row] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_row_of(line, f"{path}:{number}"))
    if not rows:
        raise ConfigError("there are no texts in these files")
    return rows


def _row_of(line: str, place: str) -> Row:
    if line[0] not in '{"':
        return Row(line)
    try:
        row = json.loads(line)
    except ValueError:
        return Row(line)
    if isinstance(row, str):
        return Row(row)
    for field in _FIELDS:
        value = row.get(field) if isinstance(row, dict) else None
        if isinstance(value, str) and value:
            cluster = row.get("cluster")
            return Row(value, None if cluster is None else str(cluster))
    raise ConfigError(f"{place}: there is none of the fields {', '.join(_FIELDS)}")


def draw_requests(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` requests drawn from the texts."""
    rng = random.Random(seed)  # noqa: S311
    ranked = list(dict.fromkeys(texts))
    rng.shuffle(ranked)
    weights = [(rank + 1) ** -EXPONENT for rank in range(len(ranked))]
    return [_vary(text, rng) for text in rng.choices(ranked, weights, k=count)]


def _vary(text: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < _SLIPS:
        text = slip(text, rng)
        return slip(text, rng) if rng.random() < _TWO_SLIPS else text
    if chance < _SLIPS + _PHRASES:
        return rephrase(text, rng)
    return text


def rephrase(text: str, rng: random.Random) -> str:
    """Return the text in other clothes, or with words of courtesy around it."""
    return rng.choice(
        (text.lower(), text.rstrip("?.!"), f"{text}?", f"{text} please", f"hi, {text}")
    )


def slip(text: str, rng: random.Random) -> str:
    """Return the text with a slip of the finger; as it is if it is very short."""
    if len(text) < 4:
        return text
    at = rng.randrange(1, len(text) - 1)
    before, key, after = text[:at], text[at], text[at + 1 :]
    wrong = rng.choice(_NEIGHBOURS.get(key.lower(), key))
    return rng.choice(
        (before + after, before + key * 2 + after, before + after[0] + key + after[1:])
        if wrong == key
        else (
            before + after,
            before + key * 2 + after,
            before + after[0] + key + after[1:],
            before + wrong + after,
        )
    )
