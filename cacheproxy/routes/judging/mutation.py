"""Questions with one thing changed that must change the answer: controls for a judge's sensitivity.

A question of the traffic is changed (a number, "from" and "to", an opposite, a name) and put to the
judge with the answer to the unchanged question. The judge must reject that
pair. A pure core: the random choice is an argument.
"""

import re
from collections.abc import Callable, Sequence

Draw = Callable[[], float]

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


def mutate(question: str, others: Sequence[str], draw: Draw) -> str | None:
    """Return a question that asks for something else, or None if none of the changes applies.

    Args:
        question: of the traffic.
        others: further questions of the same namespace, from which names are taken.
        draw: uniform in [0, 1).
    """
    found = [
        changed
        for change in (_other_number, _swapped, _opposite, _other_name(others))
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
