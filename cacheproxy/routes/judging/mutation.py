"""Questions with one thing changed that must change the answer: controls for a judge's sensitivity.

A question of the traffic is changed (a number, "from" and "to", an opposite, a name, or its rarest
word) and put to the judge with the answer to the unchanged question. The judge must reject that
pair. A pure core: the random choice is an argument.
"""

import re
from collections.abc import Callable, Sequence

Draw = Callable[[], float]

Rarity = Callable[[str], float]
"""Gives a word's rarity, from 0 for the most common ones to about 1."""

_LEAST_RARITY = 0.6
"""Of a word that carries what a question is about."""

_NUMBER = re.compile(r"(?<![\w.])\d{1,6}(?![\w.]*\w)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
_FROM_TO = re.compile(r"\bfrom ([\w ]{2,30}?) to ([\w ]{2,30}?)(?=[?.,!]|$)")

_OPPOSITES = """
increase/decrease open/close start/stop enable/disable before/after above/below first/last
minimum/maximum largest/smallest highest/lowest best/worst buy/sell import/export install/uninstall
add/remove gain/lose cheap/expensive left/right north/south east/west male/female men/women
old/young early/late indoor/outdoor hot/cold fast/slow long/short win/lose upload/download
encrypt/decrypt mother/father brother/sister husband/wife summer/winter morning/evening
monday/friday january/august more/less advantages/disadvantages pros/cons
strengths/weaknesses causes/effects
"""

_OPPOSITE = {
    word: other
    for pair in _OPPOSITES.split()
    for word, other in (pair.split("/"), reversed(pair.split("/")))
}
_WORD = re.compile(r"[A-Za-z]+")


def mutate(question: str, others: Sequence[str], rarity: Rarity, draw: Draw) -> str | None:
    """Return a question that asks for something else, or None if none of the changes applies.

    Args:
        question: of the traffic.
        others: further questions of the same namespace, from which names and words are taken.
        rarity: of words in lower case.
        draw: uniform in [0, 1).
    """
    found = [
        changed
        for change in (
            *(_other_number, _swapped, _opposite, _other_name(others)),
            _other_word(others, rarity),
        )
        if (changed := change(question, draw)) is not None and changed != question
    ]
    # The changes stand in the order of how surely they change the answer.
    return found[0] if found else None


def _other_number(question: str, draw: Draw) -> str | None:
    found = _NUMBER.search(question)
    if found is None:
        return None
    number = int(found.group())
    step = 1 + int(draw() * max(3, number // 10))
    return f"{question[: found.start()]}{number + step}{question[found.end() :]}"


def _swapped(question: str, draw: Draw) -> str | None:
    found = _FROM_TO.search(question)
    if found is None or found.group(1) == found.group(2):
        return None
    there, back = found.group(1), found.group(2)
    return f"{question[: found.start()]}from {back} to {there}{question[found.end() :]}"


def _opposite(question: str, draw: Draw) -> str | None:
    for found in _WORD.finditer(question):
        other = _OPPOSITE.get(found.group().lower())
        if other is not None:
            return f"{question[: found.start()]}{other}{question[found.end() :]}"
    return None


def _other_name(others: Sequence[str]) -> Callable[[str, Draw], str | None]:
    def change(question: str, draw: Draw) -> str | None:
        found = _NAME.search(question)
        if found is None:
            return None
        known = question.lower()
        names = {name for other in others for name in _NAME.findall(other)}
        usable = sorted(name for name in names if name.lower() not in known)
        if not usable:
            return None
        name = usable[int(draw() * len(usable))]
        return f"{question[: found.start()]}{name}{question[found.end() :]}"

    return change


def _other_word(others: Sequence[str], rarity: Rarity) -> Callable[[str, Draw], str | None]:
    """Exchange the rarest word of a question for the rarest one of another question."""

    def rarest(text: str) -> str | None:
        words = [word for word in _WORD.findall(text) if len(word) > 3]
        word = max(words, key=lambda one: rarity(one.lower()), default=None)
        return word if word is not None and rarity(word.lower()) >= _LEAST_RARITY else None

    def change(question: str, draw: Draw) -> str | None:
        mine = rarest(question)
        if mine is None:
            return None
        known = question.lower()
        found = {word for other in others if (word := rarest(other)) is not None}
        usable = sorted(word for word in found if word.lower()[:5] not in known)
        if not usable:
            return None
        word = usable[int(draw() * len(usable))]
        return re.sub(rf"\b{mine}\b", word, question, count=1)

    return change
