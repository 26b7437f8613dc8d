"""Traffic to replay: a log as it is, or requests drawn from a list of texts.

Drawn requests repeat as real ones do: a few texts often, most of them rarely (Zipf's law), some of
them with a slip of the finger or in other words around the question. Always the same for a seed.
"""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from cacheproxy.errors import ConfigError

_FIELDS = ("text", "input", "query", "prompt", "a")

_EXPONENT = 0.8
"""Of Zipf's law; logs of search engines and of assistants lie between 0.6 and 1."""

_SLIPS = 0.15
_TWO_SLIPS = 0.3
_PHRASES = 0.1

_NEIGHBOURS = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i, key in enumerate(row)
}


def read_texts(paths: Iterable[Path]) -> list[str]:
    """Return the texts of files, in their order: JSON objects or strings a line, or plain lines.

    Raises:
        ConfigError: a file cannot be read, or a line of JSON has no text.
    """
    texts: list[str] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                texts.append(_text_of(line, f"{path}:{number}"))
    if not texts:
        raise ConfigError("there are no texts in these files")
    return texts


def _text_of(line: str, place: str) -> str:
    if line[0] not in '{"':
        return line
    try:
        row = json.loads(line)
    except ValueError:
        return line
    if isinstance(row, str):
        return row
    for field in _FIELDS:
        value = row.get(field) if isinstance(row, dict) else None
        if isinstance(value, str) and value:
            return value
    raise ConfigError(f"{place}: there is none of the fields {', '.join(_FIELDS)}")


def draw_requests(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` requests drawn from the texts."""
    rng = random.Random(seed)  # noqa: S311
    ranked = list(dict.fromkeys(texts))
    rng.shuffle(ranked)
    weights = [(rank + 1) ** -_EXPONENT for rank in range(len(ranked))]
    return [_vary(text, rng) for text in rng.choices(ranked, weights, k=count)]


def _vary(text: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < _SLIPS:
        text = _slip(text, rng)
        return _slip(text, rng) if rng.random() < _TWO_SLIPS else text
    if chance < _SLIPS + _PHRASES:
        return rng.choice(
            (text.lower(), text.rstrip("?.!"), f"{text}?", f"{text} please", f"hi, {text}")
        )
    return text


def _slip(text: str, rng: random.Random) -> str:
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
