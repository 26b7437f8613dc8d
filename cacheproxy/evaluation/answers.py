"""What a simulated upstream answers: texts from a file, or noise of which only the length matters.

A file of answers has a JSON object a line, with `answers`: several wordings of one answer, as a
list or by the name of the model that wrote each. Every time it is asked the upstream takes one at
random. `cluster` or `label` says which group of questions a line answers; where no line says so,
groups take the lines in turn, and where there are fewer lines than groups the group's number ends
each answer, so that different groups never have the same one.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.traffic import Texts
from cacheproxy.routes.judging.agreement import Comparer

_NOISE_TOKENS, _NOISE_SPREAD, _MOST_TOKENS = 150.0, 0.7, 2_000.0
"""Median of the answers' lengths, standard deviation of their logarithm, and the longest."""

_CHARACTERS_A_TOKEN = 4


class Answers(Protocol):
    """The answers to the texts of one replay, one to each, as each is computed once."""

    tokens: Sequence[float]

    def agree(self, text: int, other: int) -> bool:
        """Return whether the answers to two texts are seen to be the same without a judge."""


class NoisyAnswers:
    """Answers that are never alike.

    Attributes:
        tokens: the length of each text's answer.
    """

    def __init__(self, texts: int, rng: np.random.Generator) -> None:
        lengths = _NOISE_TOKENS * np.exp(_NOISE_SPREAD * rng.standard_normal(texts))
        self.tokens: Sequence[float] = np.minimum(_MOST_TOKENS, lengths).tolist()

    def agree(self, text: int, other: int) -> bool:
        """Return that they are not."""
        return False


class WordedAnswers:
    """Answers from a file, compared as the live route compares them.

    Attributes:
        tokens: the length of each text's answer, by its characters.
    """

    def __init__(
        self,
        wordings: Sequence[Sequence[str]],
        groups: NDArray[np.int64],
        comparer: Comparer,
        rng: np.random.Generator,
    ) -> None:
        """Draw an answer to each text from its group's `wordings`; `groups` are int64 [texts]."""
        drawn = [wordings[group] for group in groups.tolist()]
        self._texts = [one[int(rng.integers(len(one)))] for one in drawn]
        self._comparer = comparer
        self.tokens: Sequence[float] = [
            max(1.0, len(text) / _CHARACTERS_A_TOKEN) for text in self._texts
        ]

    def agree(self, text: int, other: int) -> bool:
        """Return whether they are."""
        return asyncio.run(self._comparer.agree(self._texts[text], self._texts[other]))


def read_answers(path: Path, texts: Texts) -> list[list[str]]:
    """Return the wordings of each group of texts, by `joined_groups`.

    Raises:
        ConfigError: the file cannot be read, a line has no answers, or a group has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    unnamed: list[list[str]] = []
    named: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, wordings = _read_line(line, f"{path}: line {number}")
        if name is None:
            unnamed.append(wordings)
        else:
            named.setdefault(name, []).extend(wordings)
    if bool(unnamed) == bool(named):
        raise ConfigError(f"{path} must name the group of all answers or of none, and not be empty")
    groups = texts.joined_groups()
    if named:
        return _by_name(named, texts, groups, path)
    count = max(groups) + 1
    if count <= len(unnamed):
        return unnamed[:count]
    return [
        [f"{wording} [{group}]" for wording in unnamed[group % len(unnamed)]]
        for group in range(count)
    ]


def _read_line(line: str, where: str) -> tuple[str | None, list[str]]:
    try:
        row = json.loads(line)
        given = row["answers"]
        wordings = list(given.values() if isinstance(given, dict) else given)
        name = row.get("cluster", row.get("label"))
    except (ValueError, KeyError, TypeError, AttributeError):
        wordings, name = [], None
    if not wordings or not all(isinstance(one, str) and one.strip() for one in wordings):
        raise ConfigError(f"{where} is not an object with answers, one text or more")
    return None if name is None else str(name), wordings


def _by_name(
    named: dict[str, list[str]], texts: Texts, groups: Sequence[int], path: Path
) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(max(groups) + 1)]
    for number, group in enumerate(groups):
        # A group's name follows its file's path.
        parts = texts.groups.get(number, "").split(":")
        for start in range(1, len(parts)):
            if not found[group]:
                found[group] = named.get(":".join(parts[start:]), [])
    for number, group in enumerate(groups):
        if not found[group]:
            raise ConfigError(f"{path} has no answer to {texts.texts[number][:80]!r}")
    return found
