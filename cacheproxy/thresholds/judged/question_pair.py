"""What tells of two questions, besides their cosine, whether one answer does for both.

Cheap features of a pair, for a score that is learned from labels (`thresholds.judged.learned`):
words that only one has and how rare they are, order, names, first words, lengths. A word that is
one typo away from a word of the other question counts as shared. None is fitted to anything. A
question takes some 20 us to take apart, a pair some 25 us to compare.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+(?:'\w+)?")
_SENTENCE_END = ".?!:"
_MOST_WORDS = 64
"""Words of a question that are compared; what comes later is left out, so that a pair takes some
0.1 ms however long the questions are."""

_COURTESY = frozenset("please hi hello hey thanks thank".split())  # noqa: SIM905

Rarity = Callable[[str], float]
"""Gives a word's rarity, from 0 for the most common ones to 1."""


def rarity_of(vocabulary: Mapping[str, int]) -> Rarity:
    """Return the rarity of words by a tokenizer's vocabulary, which lists frequent ones first.

    The logarithm of a word's rank; a word that is no token of its own is as rare as the last one.
    It has no state, so that all servers agree, and orders pairs as well as counts of the traffic's
    own words did (2,352 and 2,328 hits where `thresholds.judged.learned` compares scores).
    """
    words = sorted((word for word in vocabulary if word.isalpha()), key=vocabulary.__getitem__)
    last = math.log(len(words) + 2)
    rarities = {word: math.log(rank + 1) / last for rank, word in enumerate(words)}
    return lambda word: rarities.get(word, 1.0)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, taken apart once.

    Attributes:
        words: in lower case, in their order; at most `_MOST_WORDS`.
        rarities: of each different word.
        names: words with a capital letter that does not begin a sentence, in lower case.
        trigrams: of the words' characters.
    """

    words: tuple[str, ...]
    rarities: dict[str, float]
    names: frozenset[str]
    trigrams: frozenset[str]


def take_apart(text: str, rarity: Rarity) -> Question:
    """Return what the features need of a question."""
    words: list[str] = []
    names: set[str] = set()
    begins = True
    for match in _WORD.finditer(text):
        word = match.group()
        lower = word.lower()
        if lower not in _COURTESY:
            if not begins and lower != word and len(word) > 1:
                names.add(lower)
            words.append(lower)
            if len(words) == _MOST_WORDS:
                break
        begins = text[match.end() : match.end() + 1] in _SENTENCE_END
    line = f" {' '.join(words)} "
    return Question(
        tuple(words),
        {word: rarity(word) for word in words},
        frozenset(names),
        frozenset(line[i : i + 3] for i in range(len(line) - 2)),
    )


def features_of(one: Question, other: Question, cosine: float) -> NDArray[np.float32]:
    """Return float32 [FEATURES]; each is about 0 to 4."""
    a, b = one.rarities, other.rarities
    only_a, only_b = _only(a, b), _only(b, a)
    if only_a and only_b:
        _match_slips(only_a, only_b)
    rare_a, rare_b = sum(map(a.__getitem__, only_a)), sum(map(b.__getitem__, only_b))
    shared = [word for word in dict.fromkeys(one.words) if word in b]
    rare_shared = sum(map(a.__getitem__, shared))
    total = rare_a + rare_b + rare_shared + 1e-6
    peak_a = max(map(a.__getitem__, only_a), default=0.0)
    peak_b = max(map(b.__getitem__, only_b), default=0.0)
    common = len(one.trigrams & other.trigrams)
    long_a, long_b = len(one.words) or 1, len(other.words) or 1
    names = (one.names - b.keys()) | (other.names - a.keys())
    return np.array(
        (
            cosine,
            -math.log(max(1 - cosine, 0.0) + 0.01) / 2,
            (rare_a + rare_b) / total,
            max(rare_a, rare_b),
            min(rare_a, rare_b),
            max(peak_a, peak_b),
            min(peak_a, peak_b),
            rare_shared,
            common / (len(one.trigrams) + len(other.trigrams) - common or 1),
            common / (min(len(one.trigrams), len(other.trigrams)) or 1),
            _share_in_order(shared, other.words),
            sum(1 for word in names if word in only_a or word in only_b),
            one.words[:1] == other.words[:1],
            one.words[-1:] == other.words[-1:],
            abs(math.log(long_a / long_b)),
            math.log(min(long_a, long_b)) / 2,
            (len(only_a) + len(only_b)) / (long_a + long_b),
            not only_a and not only_b,
        ),
        np.float32,
    )


def _only(one: dict[str, float], other: dict[str, float]) -> list[str]:
    return [word for word in one if word not in other]


def _match_slips(only_a: list[str], only_b: list[str]) -> None:
    """Remove from both lists words that are a slip of the finger, or an ending, from each other."""
    for word in tuple(only_a):
        for other in only_b:
            if _is_slip(word, other):
                only_a.remove(word)
                only_b.remove(other)
                break


def _is_slip(one: str, other: str) -> bool:
    """Return whether two words differ by one letter, two that changed places, or a plural."""
    if len(one) > len(other):
        one, other = other, one
    if len(other) - len(one) > 1 or len(one) < 4 or one.isdigit() or other.isdigit():
        return False
    start = 0
    while start < len(one) and one[start] == other[start]:
        start += 1
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    if one[start + 1 :] == other[start + 1 :]:
        return True
    swapped = one[start + 1 : start + 2] + one[start : start + 1]
    return other[start : start + 2] == swapped and one[start + 2 :] == other[start + 2 :]


def _share_in_order(shared: Sequence[str], words: Sequence[str]) -> float:
    """Return the share of neighbouring shared words that come in the same order in the other."""
    if len(shared) < 2:
        return 1.0
    places = {word: place for place, word in reversed(list(enumerate(words)))}
    order = [places[word] for word in shared]
    return sum(i < j for i, j in pairwise(order)) / (len(order) - 1)
