"""Traffic to replay: a log as it is, or requests drawn from a list of texts.

Drawn requests repeat like real ones: a few texts often, most rarely (Zipf's law), some of them with
a typo or with polite phrases around the question. Deterministic for a seed.
"""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cacheproxy.errors import ConfigError

_FIELDS = ("text", "input", "query", "prompt")

EXPONENT = 0.8
"""Exponent of Zipf's law; logs of search engines and assistants lie between 0.6 and 1."""

_SLIPS = 0.15
_TWO_SLIPS = 0.3
_PHRASES = 0.1

_NEIGHBOURS = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i, key in enumerate(row)
}


class Request(NamedTuple):
    """A requested text, and the number of the file's text from which it is derived."""

    text: str
    source: int


@dataclass(frozen=True)
class Texts:
    """The texts of files, and which of them are labelled as different in meaning.

    Attributes:
        texts: in their order.
        groups: by a text's number, the group it is in; texts of two groups are different.
        clusters: the same for groups whose texts ask the same in other words.
        different: the numbers of two texts, the lower first, that a pair labels as different.
        same: the same for pairs labelled as the same.
    """

    texts: tuple[str, ...]
    groups: Mapping[int, str] = field(default_factory=dict)
    clusters: Mapping[int, str] = field(default_factory=dict)
    different: frozenset[tuple[int, int]] = frozenset()
    same: frozenset[tuple[int, int]] = frozenset()

    @property
    def is_labelled(self) -> bool:
        """Whether the files label any texts as different."""
        return bool(self.groups or self.different)

    def differ(self, one: int, other: int) -> bool:
        """Return whether two texts, by their numbers, are labelled as different in meaning."""
        if (min(one, other), max(one, other)) in self.different:
            return True
        groups = self.groups.get(one), self.groups.get(other)
        return None not in groups and groups[0] != groups[1]

    def joined_groups(self) -> list[int]:
        """Return the group of each text, by numbers from 0.

        Texts are in one if their file says so, by a group or by pairs, over however many others.
        """
        parents = list(range(len(self.texts)))

        def top(number: int) -> int:
            while parents[number] != number:
                parents[number] = number = parents[parents[number]]
            return number

        first: dict[str, int] = {}
        groups = self.groups.items()
        by_group = ((first.setdefault(group, number), number) for number, group in groups)
        for one, other in (*by_group, *sorted(self.same)):
            parents[top(one)] = top(other)
        numbers: dict[int, int] = {}
        return [numbers.setdefault(top(number), len(numbers)) for number in range(len(self.texts))]


def read_texts(paths: Iterable[Path]) -> Texts:
    """Return the texts of files: JSON objects or strings a line, or plain lines.

    An object has its text under one of `text`, `input`, `query` and `prompt`, and may name its
    `cluster`, of texts that ask the same, or its `label`, of texts that are alike; or it is a pair,
    `a` and `b`, with `label` 0 where the two are different.

    Raises:
        ConfigError: a file cannot be read, or a line of JSON has no text.
    """
    texts: list[str] = []
    groups: dict[int, str] = {}
    clusters: dict[int, str] = {}
    different: set[tuple[int, int]] = set()
    same: set[tuple[int, int]] = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        for number, line in enumerate(lines, start=1):
            row = _row_of(line)
            if isinstance(row, str):
                texts += [row] if row.strip() else []
            elif isinstance(row.get("a"), str) and isinstance(row.get("b"), str):
                pairs = {"0": different, "1": same}.get(str(row.get("label")))
                if pairs is not None:
                    pairs.add((len(texts), len(texts) + 1))
                texts += [row["a"], row["b"]]
            else:
                group = row.get("cluster", row.get("label"))
                if group is not None:
                    groups[len(texts)] = f"{path}:{group}"
                if "cluster" in row:
                    clusters[len(texts)] = f"{path}:{group}"
                texts.append(_text_of(row, f"{path}:{number}"))
    if not texts:
        raise ConfigError("these files contain no texts")
    return _merged(texts, groups, clusters, different, same)


def _merged(
    texts: list[str],
    groups: dict[int, str],
    clusters: dict[int, str],
    different: set[tuple[int, int]],
    same: set[tuple[int, int]],
) -> Texts:
    """Return the texts with labels moved to the first occurrence of each."""
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        first.setdefault(text, number)

    def moved(pairs: set[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        numbers = ((first[texts[one]], first[texts[other]]) for one, other in pairs)
        return frozenset((min(pair), max(pair)) for pair in numbers if pair[0] != pair[1])

    return Texts(
        tuple(texts),
        {first[texts[number]]: group for number, group in reversed(groups.items())},
        {first[texts[number]]: cluster for number, cluster in reversed(clusters.items())},
        moved(different),
        moved(same),
    )


def joined(first: Texts, second: Texts) -> Texts:
    """Return all texts, the second ones numbered after the first."""
    offset = len(first.texts)
    return Texts(
        first.texts + second.texts,
        {**first.groups, **{offset + number: name for number, name in second.groups.items()}},
        {**first.clusters, **{offset + number: name for number, name in second.clusters.items()}},
        first.different | {(offset + one, offset + other) for one, other in second.different},
        first.same | {(offset + one, offset + other) for one, other in second.same},
    )


def _row_of(line: str) -> str | dict[str, Any]:
    if line[:1] not in {"{", '"'}:
        return line
    try:
        row = json.loads(line)
    except ValueError:
        return line
    return row if isinstance(row, str | dict) else line


def _text_of(row: Mapping[str, Any], place: str) -> str:
    for key in _FIELDS:
        value = row.get(key)
        if isinstance(value, str) and value:
            return value
    raise ConfigError(f"{place}: none of the fields {', '.join(_FIELDS)} is present")


def all_requests(texts: Texts) -> list[Request]:
    """Return every text as a request, in their order."""
    first: dict[str, int] = {}
    return [
        Request(text, first.setdefault(text, number)) for number, text in enumerate(texts.texts)
    ]


def draw_requests(texts: Texts, count: int, seed: int) -> list[Request]:
    """Return `count` requests drawn from the texts."""
    rng = random.Random(seed)  # noqa: S311
    ranked = list(dict.fromkeys(all_requests(texts)))
    rng.shuffle(ranked)
    weights = [(rank + 1) ** -EXPONENT for rank in range(len(ranked))]
    return [
        Request(_vary(text, rng), source) for text, source in rng.choices(ranked, weights, k=count)
    ]


def _vary(text: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < _SLIPS:
        text = slip(text, rng)
        return slip(text, rng) if rng.random() < _TWO_SLIPS else text
    if chance < _SLIPS + _PHRASES:
        return rephrase(text, rng)
    return text


def rephrase(text: str, rng: random.Random) -> str:
    """Return the text with other case or punctuation, or with polite phrases around it."""
    return rng.choice(
        (text.lower(), text.rstrip("?.!"), f"{text}?", f"{text} please", f"hi, {text}")
    )


def slip(text: str, rng: random.Random) -> str:
    """Return the text with a typo; unchanged if it is very short."""
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
