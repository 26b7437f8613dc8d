"""The texts of a load test; of each it is known beforehand whether the server has seen it.

Texts are drawn from files. Without files, or when these are used up, texts are made up from the
words of the files, or else of the texts that ship with the package, so that every scenario runs
from a fresh clone. Repeats follow Zipf's law: the oldest text is asked for most often.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cacheproxy.evaluation.traffic import EXPONENT, Texts, read_texts, rephrase, slip
from cacheproxy.modelkit.building.corpus import read_corpus
from cacheproxy.modelkit.manifest import models_folder

from .scenario import KINDS, Kind, Mix

_SETTLE_S = 1.0
"""A text counts as seen this long after it was asked for, because its answer has come by then."""

_TRIES = 20


@dataclass(frozen=True)
class Drawn:
    """A text and its kind."""

    text: str
    kind: Kind


def text_of_length(seed: str, characters: int) -> str:
    """Return a made-up text with so many characters, always the same one for a seed."""
    rng = random.Random(seed)  # noqa: S311
    text = " ".join(rng.choices(_shipped_words(), k=characters // 4 + 1))
    while len(text) < characters:
        text += " " + rng.choice(_shipped_words())
    # A server that trims would remove a blank at the end, and so change the length.
    return text[: characters - 1] + "s" if text[characters - 1] == " " else text[:characters]


def text_of_words(seed: str, words: int) -> str:
    """Return a made-up text of so many words, always the same one for a seed.

    A word is 1.09 tokens on average in BERT's vocabulary, 1.05 in `cl100k_base` (measured).
    """
    rng = random.Random(seed)  # noqa: S311
    return " ".join(rng.choices(_shipped_words(), k=words))


@lru_cache(1)
def _shipped_words() -> Sequence[str]:
    corpus = read_corpus(models_folder())
    return _words_of((*corpus.calibration, *corpus.held_out))


def _words_of(texts: Iterable[str]) -> Sequence[str]:
    """Return the words of texts with their repetitions; where there are none, whatever there is."""
    words = [word for text in texts for word in text.split()]
    return [word for word in words if word.isascii() and word.isalpha()] or words


class TextSource:
    """Draws texts by kind, and remembers which were asked for.

    The seed decides the order in which texts of files are drawn. One text of each cluster is drawn
    as unseen; the others are its paraphrases.
    """

    def __init__(self, seed: int, texts: Texts | None = None) -> None:
        self._rng = random.Random(seed)  # noqa: S311
        self._fresh, self._mates = _split(texts or Texts(()), self._rng)
        self._words = _words_of(texts.texts) if texts else _shipped_words()
        self._known: list[str] = []
        self._asked_at: list[float] = []
        self._settled = 0
        self._asked: set[str] = set()

    def draw(
        self,
        mix: Mix,
        words: tuple[int, int],
        at_s: float,
        *,
        remember: bool,
        lasts_s: float = 0.0,
    ) -> Drawn:
        """Return a text to ask for at `at_s` seconds after the first phase began.

        `at_s` must not decrease from call to call. While no text is known, the text is unseen.
        `lasts_s` is how long the session that it begins goes on.
        """
        while self._settled < len(self._known) and self._asked_at[self._settled] <= at_s:
            self._settled += 1
        shares = (mix.repeat, mix.paraphrase, mix.typo, mix.unseen)
        (kind,) = self._rng.choices(KINDS, shares)
        if kind == "unseen" or not self._settled:
            drawn = Drawn(self._draw_unseen(words), "unseen")
        else:
            drawn = self._draw_known(kind)
        if remember and drawn.kind != "repeat":
            self.remember(drawn.text, at_s + lasts_s + _SETTLE_S)
        return drawn

    def remember(self, text: str, known_at_s: float) -> None:
        """Count a text as seen from `known_at_s` on."""
        self._known.append(text)
        self._asked_at.append(known_at_s)

    def _rank(self) -> int:
        # The inverse of the distribution function of Zipf's law, as if ranks were continuous.
        power = 1 - EXPONENT
        most = (self._settled + 1) ** power - 1
        return min(int((1 + self._rng.random() * most) ** (1 / power)), self._settled) - 1

    def _draw_known(self, kind: Kind) -> Drawn:
        text = self._known[self._rank()]
        if kind == "repeat":
            return Drawn(text, kind)
        for _ in range(_TRIES):
            varied = slip(text, self._rng) if kind == "typo" else self._reword(text)
            if varied not in self._asked:
                self._asked.add(varied)
                return Drawn(varied, kind)
            # All variations of a popular text are soon used up.
            text = self._known[self._rank()]
        return Drawn(text, "repeat")

    def _reword(self, text: str) -> str:
        mates = self._mates.get(text)
        return mates.pop() if mates else rephrase(text, self._rng)

    def _draw_unseen(self, words: tuple[int, int]) -> str:
        while True:
            if self._fresh:
                text = self._fresh.pop()
            else:
                text = " ".join(self._rng.choices(self._words, k=self._rng.randint(*words)))
            if text not in self._asked:
                self._asked.add(text)
                return text


def _split(texts: Texts, rng: random.Random) -> tuple[list[str], dict[str, list[str]]]:
    first: dict[str, str] = {}
    mates: dict[str, list[str]] = {}
    fresh: list[str] = []
    for number in rng.sample(range(len(texts.texts)), len(texts.texts)):
        text, cluster = texts.texts[number], texts.clusters.get(number)
        if cluster is None or cluster not in first:
            fresh.append(text)
            if cluster is not None:
                first[cluster] = text
        else:
            mates.setdefault(first[cluster], []).append(text)
    return fresh, mates


def read_files(paths: Iterable[str]) -> Texts | None:
    """Return the texts of files, or None without files; raises `ConfigError`."""
    given = [Path(path) for path in paths]
    return read_texts(given) if given else None
