"""No regular expression of the package takes more than linear time, whatever text it is given.

Every pattern that a module keeps is found and tried, so that a new one cannot be forgotten. At this
length a quadratic pattern takes several seconds, a linear one milliseconds.
"""

import importlib
import pkgutil
import re
import time

import pytest

import cacheproxy
from cacheproxy.routes.chat.signature import signature_of

LENGTH = 20_000
MOST_CPU_S = 1.0

OPTIONAL = {"cacheproxy.modelkit.building"}
"""Needs libraries that are not always installed, and reads only what the user has downloaded."""


def patterns() -> dict[str, re.Pattern]:
    found = {}
    for module in pkgutil.walk_packages(cacheproxy.__path__, "cacheproxy."):
        if module.name.endswith("__main__") or any(map(module.name.startswith, OPTIONAL)):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, re.Pattern):
                found.setdefault(f"{value.pattern!r}", value)
    return found


PATTERNS = patterns()


def hostile(alphabet: str) -> list[str]:
    """Return long texts of these characters: repeated, in turns, before a line's end, in lines."""
    texts = []
    for one in alphabet:
        texts += [one * LENGTH, "a" * LENGTH + one, one * LENGTH + "\n", f"{one}\n" * (LENGTH // 2)]
        texts += [f"{one}a" * (LENGTH // 2), f"{one} " * (LENGTH // 2), f" {one}" * (LENGTH // 2)]
        texts += [f"{one}{one}{one}a" * (LENGTH // 4), one + "a" * LENGTH]
    return texts


def alphabet_of(pattern: re.Pattern) -> str:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
    marks = {c for c in text if not c.isalnum()} | {*"aA0.-`\t\r"} | {*text[:8]}
    return "".join(sorted(marks))


def test_the_patterns_that_see_foreign_text_are_found():
    assert len(PATTERNS) > 15


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_linear_time_on_hostile_text(name):
    pattern = PATTERNS[name]
    is_bytes = isinstance(pattern.pattern, bytes)
    for text in hostile(alphabet_of(pattern)):
        given = text.encode() if is_bytes else text
        started = time.process_time()
        pattern.fullmatch(given)
        pattern.match(given)
        for _ in pattern.finditer(given):
            pass
        assert time.process_time() - started < MOST_CPU_S, text[:8]


MARKS = "\"'`«»‹›“”„「」『』《》().,;:!?-_/0٢२aß不ｱ \u0301\ufdfa"


@pytest.mark.parametrize("mark", MARKS)
def test_a_signature_takes_linear_time_on_hostile_text(mark):
    for text in [*hostile(mark), "n'" * (LENGTH // 2), "qu'" * (LENGTH // 3)]:
        started = time.process_time()
        signature_of(text)
        assert time.process_time() - started < MOST_CPU_S, text[:8]
