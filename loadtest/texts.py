"""The texts of a load test, and what is known of each beforehand: seen before, or not.

Texts are drawn from files; where there are none, or no more, they are made up of the words of the
files, or of the texts that ship with the package, so that every scenario runs from a fresh clone.
What has been asked for is asked for again by Zipf's law: the oldest most often.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cacheproxy.evaluation.traffic import EXPONENT, Texts, read_texts, rephrase, slip
from cacheproxy.modelkit.building.corpus import read_corpus
from cacheproxy.modelkit.manifest import models_folder
from loadtest.scenario import KINDS, Kind, Mix

_SETTLE_S = 1.0
"""A text counts as seen when it was asked for so long ago: then its answer has come."""

_TRIES = 20


@dataclass(frozen=True)
class Drawn:
    """A text and what it is, as asked for."""

    text: str
    kind: Kind


def text_of_length(seed: str, characters: int) -> str:
    """Return the made-up text of a seed that has so many characters; always the same one."""
    rng = random.Random(seed)  # noqa: S311
    text = " ".join(rng.choices(_shipped_words(), k=characters // 4 + 1))
    while len(text) < characters:
        text += " " + rng.choice(_shipped_words())
    # A blank at the end would be lost on who trims, and with it the length.
    return text[: characters - 1] + "s" if text[characters - 1] == " " else text[:characters]


@lru_cache(1)
def _shipped_words() -> Sequence[str]:
    corpus = read_corpus(models_folder())
    return _words_of((*corpus.calibration, *corpus.held_out))


def _words_of(texts: Iterable[str]) -> Sequence[str]:
    """Return the words of texts, as often as they occur there; some that are no words may do."""
    words = [word for text in texts for word in text.split()]
    return [word for word in words if word.isascii() and word.isalpha()] or words


class TextSource:
    """Draws texts by kind, and remembers what has been asked for.

    Texts of files come in an order of the seed's; of each cluster one text is drawn as unseen, and
    the others are its paraphrases.
    """

    def __init__(self, seed: int, texts: Texts | None = None) -> None:
        self._rng = random.Random(seed)  # noqa: S311
        self._fresh, self._mates = _split(texts or Texts(()), self._rng)
        self._words = _words_of(texts.texts) if texts else _shipped_words()
        self._known: list[str] = []
        self._asked_at: list[float] = []
        self._settled = 0
        self._asked: set[str] = set()

    def draw(self, mix: Mix, words: tuple[int, int], at_s: float, *, remember: bool) -> Drawn:
        """Return a text to ask for at a moment, seconds since the first phase began.

        Moments never go back. Where nothing has been asked for yet, the text is unseen.
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
            self.remember(drawn.text, at_s + _SETTLE_S)
        return drawn

    def remember(self, text: str, known_at_s: float) -> None:
        """Count a text as seen from a moment on."""
        self._known.append(text)
        self._asked_at.append(known_at_s)

    def _rank(self) -> int:
        # The inverse of the Zipf law's distribution function, as if ranks were continuous.
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
            # What is popular soon has no variation left that has not been asked for.
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
    """Return the texts of files, None for no files; raises `ConfigError`."""
    given = [Path(path) for path in paths]
    return read_texts(given) if given else None
