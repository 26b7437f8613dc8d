"""What two questions must have in common, word for word, before likeness is asked about.

Numbers, dates, negations, quoted strings and code change an answer more than they change a vector:
to an encoder, "in 2019" and "in 2020" are nearly the same question. Questions whose signatures
differ are never each other's neighbours: the signature is a part of what partitions a lookup, so
that such a question does not even hide a better neighbour.

Digits, quotes and code count in every script; words for numbers, dates and negations count in the
languages of `counted_words`. Where a word is not recognised, the earned threshold still stands.
The time is linear in the length of the text, whatever the text is: no quantified part of a pattern
may run past the character that begins another match.
"""

import re

from cacheproxy.keys import encode_fields
from cacheproxy.routes.chat.counted_words import (
    DATES,
    ELIDED,
    IDEOGRAPHIC,
    NEGATED,
    NEGATIONS,
    NUMBERS,
    normalized,
)

_STRAIGHT = str.maketrans(dict.fromkeys("\u2018\u2019\u201a", "'") | dict.fromkeys("“”„＂", '"'))
_CODE = re.compile(r"```.*?(?:```|$)|`[^`\n]+`", re.DOTALL)
_QUOTED = re.compile(
    r'"([^"\n]+)"|«([^«»\n]+)»|「([^「」\n]+)」|『([^『』\n]+)』|《([^《》\n]+)》'
    r"|(?<!\w)'([^'\n]+)'(?!\w)"
)
_IDEOGRAPHS = r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"([{_IDEOGRAPHS}]+)|[^\s{_IDEOGRAPHS}]+")
_EDGES = ".,;:!?()[]{}<>\"'«»…¿¡।॥؟،؛。、，！？；：（）「」『』《》·"
_SEPARATORS = str.maketrans("", "", ",\u066c")
_LOOKS_LIKE_CODE = re.compile(r"[_/\\=<>{}|@#$%^*~+]|::|\(\)|^-|\.\w|[a-z][A-Z]")


class _Counts:
    """Numbers and dates in their order, and how many negations there are."""

    def __init__(self) -> None:
        self.numbers: list[str] = []
        self.negations = 0

    def read_ideographs(self, run: str) -> None:
        """Count what is in a run of Chinese or Japanese."""
        for found in IDEOGRAPHIC.finditer(run):
            if found.lastgroup == "number":
                self.numbers.append(found.group())
            elif found.lastgroup == "negation":
                self.negations += 1

    def read_word(self, word: str) -> bool:
        """Count a normalised word; return whether it is counted as anything."""
        is_negation = False
        if elided := ELIDED.match(word):
            is_negation = elided.group() == "n'"
            word = word[elided.end() :]
        if word in NUMBERS or word in DATES or any(c.isnumeric() for c in word):
            self.numbers.append(word.translate(_SEPARATORS))
            self.negations += is_negation
            return True
        negations = is_negation + (word in NEGATIONS or NEGATED.search(word) is not None)
        self.negations += negations
        return negations > 0


def signature_of(text: str) -> bytes:
    """Return bytes that two questions share if nothing in them forbids a common answer.

    Numbers and dates count in their order, negations by their number, the rest as sets.
    """
    text = text.translate(_STRAIGHT)
    code = {" ".join(span.strip("`").split()) for span in _CODE.findall(text)}
    text = _CODE.sub(" ", text)
    quoted = {" ".join("".join(groups).split()) for groups in _QUOTED.findall(text)}
    counts = _Counts()
    for found in _TOKEN.finditer(text):
        token = found.group()
        if found.group(1):
            counts.read_ideographs(token)
            continue
        token = token.strip(_EDGES)
        if token and not counts.read_word(normalized(token)) and _LOOKS_LIKE_CODE.search(token):
            code.add(token)
    fields: list[str | int] = [counts.negations]
    for words in (counts.numbers, sorted(quoted), sorted(code)):
        fields += [len(words), *words]
    return encode_fields(*fields)
