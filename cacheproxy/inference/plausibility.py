"""Whether a text was written, or is what token ids decode to with another tokenizer's vocabulary.

Ids decoded with the wrong vocabulary give fragments: "Uri/Fml", " oper.Map.length Penn", pieces of
four scripts in one line. Written text has ordinary words between single spaces. Each piece between
spaces is of a kind, and each kind has a weight: the natural logarithm of how much more often it
occurs in written text. The sum is the evidence of a text (naive Bayes).

The weights were measured on the 1,520 texts that ship for calibration, as written (and as
`cl100k_base`, `o200k_base` and all-MiniLM's vocabulary give them back) against the same ids decoded
with each of the other vocabularies. They are the same for all languages. For words of other scripts
than Latin, which those texts hardly have, the weight is set by hand, to say little.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

_MOST_CHARACTERS = 2_000
"""Of a request that are weighed: beyond that the evidence is there, or never will be."""


def _words_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTION_WORDS = _words_in(
    "a about after all am an and any are as at be been before between but by can could did do "
    "does for from get go had has have he hello her here hi him his how i if in into is it its "
    "make many may me might more most much must my new no not of off ok on one or our out over "
    "please she should so some than thanks that the their them then there these they this "
    "those to two under up us was we were what when where which who whom whose why will with "
    "would yes you your"
)
_FUNCTION_WORDS_ELSEWHERE = _words_in(
    "auf das dem den der die ein eine für ich ist mit nicht sie und von wie zu "
    "au dans de des du elle est et il je la le les pas pour que qui sur un une vous "
    "al como con del el es las los para por se su com da em não os um uma che di è non per "
    "een en het niet op van voor att det och på som är jest na nie się że bir bu için ve"
)
"""The shortest and commonest of German, French, Spanish, Portuguese, Italian, Dutch, Swedish,
Polish, Turkish. They would count as fragments otherwise. They weigh less than those of English, as
fragments are more often like one of ten languages."""

_CONTRACTIONS = frozenset(("s", "t", "m", "d", "re", "ve", "ll"))

_LATER = {
    "function": 3.1,
    "known": 0.9,
    "known, capital": 0.0,
    "short": -0.8,
    "short, capital": -1.3,
    "letter": -1.1,
    "unknown": -1.5,
    "unknown, capital": -2.1,
    "number": 1.5,
    "punctuation": 2.2,
    "script": 0.3,
    "digits and letters": -2.3,
    "mixed": -4.9,
    "symbols": -2.7,
}
_FIRST = {
    "function": 2.9,
    "known": 0.3,
    "known, capital": 1.8,
    "short": -1.1,
    "short, capital": 0.0,
    "letter": -0.4,
    "unknown": -1.9,
    "unknown, capital": -1.1,
    "number": 0.1,
    "punctuation": 0.9,
    "script": 0.3,
    "digits and letters": -2.7,
    "mixed": -3.8,
    "symbols": -2.8,
}
_SPACE_FIRST = -5.0
_ODD_SPACE = -2.0
_ANOTHER_SCRIPT = -3.0
"""For white space at the beginning; for each other than one space between words; for each script
beyond the first. In the calibration texts these are rarer by far (-8 and less), but these are
single lines in one language."""

_PIECE = re.compile(
    r"""[("'“‘«\[¿¡$€£]?(?P<core>[^\W_](?:.*[^\W_])?)%?[.,;:!?…。，、？！؟।]{0,3}[)\]]?["'”’»]?[.,;:!?]?""",
    re.DOTALL,
)
_PUNCTUATION = re.compile(
    r"""[.,;:!?…()\[\]"'“”‘’«»&+=/$€£%#@*–—-]|\.\.\.|--|[:;]-?[()]|[。，、？！؟।]"""
)
_ODD_GAP = re.compile(r"\s{2,}|[^\S ]")
_NUMBER = re.compile(r"\d[\d.,:/]*")
_INNER = re.compile(r"['’/-]")
_EAST_ASIAN = frozenset(
    ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
)

IsKnown = Callable[[str], bool]
"""Returns whether a word, in small letters, is a common one."""


def evidence_of(texts: Iterable[str], is_known: IsKnown) -> float:
    """Return the evidence that texts were written: log odds to be added to those before."""
    evidence, left = 0.0, _MOST_CHARACTERS
    for text in texts:
        evidence += _evidence(text[:left], is_known)
        left -= len(text)
        if left <= 0:
            break
    return evidence


def _evidence(text: str, is_known: IsKnown) -> float:
    pieces = text.split()
    evidence = _SPACE_FIRST if text[:1].isspace() else 0.0
    evidence += _ODD_SPACE * len(_ODD_GAP.findall(text.strip()))
    scripts: set[str] = set()
    weights = _FIRST
    for piece in dict.fromkeys(pieces):  # one that comes again is no more evidence
        plain = "".join(map(_without_mark, piece)) if not piece.isascii() else piece
        evidence += weights[_kind(plain, is_known, is_first=weights is _FIRST)]
        scripts |= _scripts(plain)
        weights = _LATER
    return evidence + _ANOTHER_SCRIPT * max(len(scripts) - 1, 0)


def _kind(piece: str, is_known: IsKnown, *, is_first: bool) -> str:
    if _PUNCTUATION.fullmatch(piece):
        return "punctuation"
    found = _PIECE.fullmatch(piece)
    if found is None:
        return "symbols"
    core = found["core"]
    if _NUMBER.fullmatch(core):
        return "number"
    words = [word for word in _INNER.split(core) if word]
    if not all(map(str.isalpha, words)):
        return "digits and letters" if core.isalnum() else "symbols"
    if len(_scripts(core)) > 1 or not all(map(_has_usual_case, words)):
        return "mixed"
    first, *more = words
    kinds = [_word_kind(first, is_known, is_first=is_first)]
    kinds += ["function" if word in _CONTRACTIONS else _word_kind(word, is_known) for word in more]
    return min(kinds, key=_LATER.__getitem__)


def _word_kind(word: str, is_known: IsKnown, *, is_first: bool = False) -> str:
    small = word.lower()
    is_usual = word == small or (is_first and not word[1:].isupper()) or word == "I"
    if is_usual and small in _FUNCTION_WORDS:
        return "function"
    if "LATIN" not in _scripts(word):
        return "script"
    if len(word) == 1:
        return "letter"
    if is_usual and small in _FUNCTION_WORDS_ELSEWHERE:
        return "known"
    kind = "unknown" if not is_known(small) else "short" if len(word) <= 3 else "known"
    return kind if word.islower() else f"{kind}, capital"


def _has_usual_case(word: str) -> bool:
    return word == word.lower() or word.isupper() or word[1:] == word[1:].lower()


def _scripts(piece: str) -> frozenset[str]:
    if piece.isascii():
        return _LATIN if any(map(str.isalpha, piece)) else _NONE
    return frozenset(script for character in piece if (script := _script(character)))


_LATIN, _NONE = frozenset(("LATIN",)), frozenset[str]()


@lru_cache(8_192)
def _script(character: str) -> str:
    """Return the first word of a letter's name, which is its script; else nothing."""
    if not character.isalpha():
        return ""
    script = unicodedata.name(character, "?").partition(" ")[0]
    return "CJK" if script in _EAST_ASIAN else script


@lru_cache(8_192)
def _without_mark(character: str) -> str:
    """Return a character, or nothing in place of a mark on the one before it, as a vowel sign."""
    return "" if unicodedata.category(character)[0] == "M" else character
