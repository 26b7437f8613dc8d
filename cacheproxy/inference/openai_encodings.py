"""OpenAI's vocabularies `cl100k_base` and `o200k_base`, read from this package.

Clients built for OpenAI (LangChain, for one) send token ids of these vocabularies. The rank files
in `openai_vocabularies/` are OpenAI's own, byte for byte, under the MIT licence there, compressed
with xz (1.7 MB together). They are shipped because tiktoken would download them on first use, and a
server must not depend on that. A vocabulary is loaded when it is first needed: about 0.3 s and
45 MB for cl100k_base, 0.6 s and 70 MB for o200k_base (tiktoken 0.14, CPython 3.11).
"""

import codecs
import hashlib
import lzma
from base64 import b64decode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from cacheproxy.errors import CacheproxyError

if TYPE_CHECKING:
    import tiktoken

EncodingName = Literal["cl100k_base", "o200k_base"]

ENCODING_NAMES: tuple[EncodingName, ...] = get_args(EncodingName)

# Patterns and digests as in tiktoken 0.14, tiktoken_ext/openai_public.py.
_PATTERNS: dict[EncodingName, str] = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": "|".join(
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
}
_SHA256: dict[EncodingName, str] = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}


_CUT_LENGTH = 256
"""Lists of at least this many ids may begin or end inside a character: clients cut long texts at
a number of ids (LangChain at 8,191), and one character may be several ids."""

_MOST_CHARACTERS = 262_144
"""Of the text of one list. tiktoken encodes a run of as many spaces in 0.1 s; its time grows with
the square, and at a million spaces it fails (measured)."""

_MOST_CHARACTERS_IN_ALL = 4 * 2**20
"""Of the texts of one request: twice what the default limit on a body allows as text."""

_CONTINUATION = range(0x80, 0xC0)
"""Bytes that begin no character of UTF-8 (RFC 3629)."""

_UTF8 = codecs.getincrementaldecoder("utf-8")


def texts_of(name: EncodingName, lists: Sequence[list[int]]) -> list[str] | None:
    """Return the text of each list of ids, or None unless all lists are canonical.

    A list is canonical if its text gives the same ids again. Lists that were cut out of the ids of
    a longer text are, as BPE never merges across the end of a token. A character that the cut has
    split is left out of the text.

    Raises:
        CacheproxyError: the rank file in this package is damaged.
    """
    encoding = load_encoding(name)
    texts: list[str] = []
    characters = 0
    is_cut = False
    for ids in lists:
        # The rest of a long text may be short: it follows the list that lacks an end.
        may_be_cut = is_cut or len(ids) >= _CUT_LENGTH
        decoded = _decode(encoding, ids, may_be_cut=may_be_cut)
        if decoded is None:
            return None
        characters += len(decoded.text)
        if len(decoded.text) > _MOST_CHARACTERS or characters > _MOST_CHARACTERS_IN_ALL:
            return None
        if not _is_canonical(encoding, decoded, may_be_cut=may_be_cut):
            return None
        texts.append(decoded.text)
        is_cut = decoded.is_cut
    return texts


def _is_canonical(encoding: "tiktoken.Encoding", decoded: "_Decoded", *, may_be_cut: bool) -> bool:
    """Return whether the text gives the same ids again."""
    if encoding.encode_ordinary(decoded.whole_text) == decoded.whole_ids:
        return True
    # White space at the end is encoded in another way if more text follows, as where it was cut.
    is_open = may_be_cut and decoded.whole_text[-1:].isspace()
    return is_open and encoding.encode_ordinary(decoded.whole_text + "0")[:-1] == decoded.whole_ids


class _Decoded(NamedTuple):
    """A list of ids as text.

    Attributes:
        text: all whole characters.
        whole_ids: the ids without those at the ends that hold parts of characters.
        whole_text: their text.
        is_cut: whether the list ends inside a character.
    """

    text: str
    whole_ids: list[int]
    whole_text: str
    is_cut: bool


def _decode(encoding: "tiktoken.Encoding", ids: list[int], *, may_be_cut: bool) -> _Decoded | None:
    """Return the ids as text; None if one is not in the vocabulary, or if it is no UTF-8."""
    try:
        pieces = encoding.decode_tokens_bytes(ids)
        content = b"".join(pieces)
        head = sum(1 for _ in takewhile(_CONTINUATION.__contains__, content))
        utf8 = _UTF8()
        text = utf8.decode(content[head:])
        tail = len(utf8.getstate()[0])
        if not head and not tail:
            return _Decoded(text, ids, text, is_cut=False)
        if not may_be_cut:
            return None
        begin, end = _spanning(pieces, head), len(ids) - _spanning(pieces[::-1], tail)
        return _Decoded(text, ids[begin:end], b"".join(pieces[begin:end]).decode(), tail > 0)
    except (KeyError, OverflowError, UnicodeDecodeError):
        return None


def _spanning(pieces: Sequence[bytes], size: int) -> int:
    """Return how many of the first pieces hold the first `size` bytes."""
    count = 0
    while size > 0:
        size -= len(pieces[count])
        count += 1
    return count


def is_common_word(word: str) -> bool:
    """Return whether a word, in small letters, is one token in a vocabulary, after a space."""
    return word in _common_words()


@cache
def _common_words() -> frozenset[str]:
    """Some 78,000 words of many languages, 8 MB."""
    tokens = (token for name in ENCODING_NAMES for token in load_encoding(name).token_byte_values())
    words = (token[1:].decode(errors="replace") for token in tokens if token.startswith(b" "))
    return frozenset(word.lower() for word in words if word.isalpha())


def encoding_of_model(name: str) -> EncodingName | None:
    """Return the vocabulary of OpenAI's model of that name, if it is one of the two."""
    from tiktoken.model import encoding_name_for_model

    try:
        encoding = encoding_name_for_model(name.removeprefix("openai/"))
    except KeyError:
        return None
    return next((known for known in ENCODING_NAMES if known == encoding), None)


@cache
def load_encoding(name: EncodingName) -> "tiktoken.Encoding":
    """Return a vocabulary without its special tokens, whose ids no text gives by default.

    Raises:
        CacheproxyError: the rank file in this package is not OpenAI's.
    """
    import tiktoken  # late: it takes 35 ms, and most servers are never sent token ids

    packed = files(__package__).joinpath("openai_vocabularies", f"{name}.tiktoken.xz").read_bytes()
    ranks = lzma.decompress(packed)
    if hashlib.sha256(ranks).hexdigest() != _SHA256[name]:
        raise CacheproxyError(f"the vocabulary {name} of this installation is damaged")
    lines = (line.split() for line in ranks.splitlines())
    return tiktoken.Encoding(
        name,
        pat_str=_PATTERNS[name],
        mergeable_ranks={b64decode(token): int(rank) for token, rank in lines},
        special_tokens={},
    )
