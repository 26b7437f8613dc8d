"""What two questions must have in common, word for word, before likeness is asked about.

Numbers, dates, negations, quoted strings and code change an answer more than they change a vector:
"in 2019" and "in 2020" are all but one question to an encoder. Questions whose signatures differ
are never each other's neighbours: the signature is a part of what partitions a lookup, so that such
a one does not even hide a better neighbour behind it. English only; where words of another
language are not recognised, the earned threshold still stands.
"""

import re

from cacheproxy.keys import encode_fields

_CURLY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_CODE = re.compile(r"```.*?(?:```|$)|`[^`\n]+`", re.DOTALL)
_QUOTED = re.compile(r'"([^"\n]+)"|«([^»\n]+)»|(?<!\w)\'([^\'\n]+)\'(?!\w)')
_TOKEN = re.compile(r"\S+")
_EDGES = ".,;:!?()[]{}<>\"'«»…"
_LOOKS_LIKE_CODE = re.compile(r"[_/\\=<>{}|@#$%^*~+]|::|\(\)|^-|\.\w|[a-z][A-Z]")

_NEGATION = re.compile(
    r"^(?:not|no|never|none|nothing|nobody|nowhere|neither|nor|without|cannot|\w+n't)$"
)

_NUMBER_WORDS = """
zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand
million billion half third quarter dozen twice first second
"""
"""Not "one", which is a pronoun more often."""

_DATE_WORDS = """
january february march april may june july august september october november december
jan feb mar apr jun jul aug sep sept oct nov dec
monday tuesday wednesday thursday friday saturday sunday
today tomorrow yesterday tonight now
"""

_COUNTED = frozenset((*_NUMBER_WORDS.split(), *_DATE_WORDS.split()))


def signature_of(text: str) -> bytes:
    """Return bytes that two questions share if nothing in them forbids a common answer.

    Numbers and dates count in their order, negations by their number, the rest as sets.
    """
    text = text.translate(_CURLY)
    code = {" ".join(span.strip("`").split()) for span in _CODE.findall(text)}
    text = _CODE.sub(" ", text)
    quoted = {" ".join("".join(groups).split()) for groups in _QUOTED.findall(text)}
    numbers: list[str] = []
    negations = 0
    for raw in _TOKEN.findall(text):
        token = raw.strip(_EDGES)
        word = token.lower()
        if word in _COUNTED or any(character.isdigit() for character in word):
            numbers.append(word.replace(",", ""))
        elif _NEGATION.match(word):
            negations += 1
        elif _LOOKS_LIKE_CODE.search(token):
            code.add(token)
    fields: list[str | int] = [negations]
    for words in (numbers, sorted(quoted), sorted(code)):
        fields += [len(words), *words]
    return encode_fields(*fields)
