"""Whose token ids a request holds: the model's own, or those of a vocabulary of OpenAI's.

A list of ids carries no mark of the tokenizer that made it, and clients built for OpenAI send
`cl100k_base` to whatever model they are pointed at. Taken for the model's own, such ids give the
vector of another text, without an error. Two kinds of evidence tell them apart:

- **A canonical round trip.** Ids that a tokenizer gives again for the text that they decode to may
  be its own. All lists of a request come from one tokenizer, so they are judged together. Half of
  all short lists pass for another vocabulary, too, by chance.
- **The text.** Of several readings the one that was written is told by its words (`plausibility`):
  what another tokenizer's ids decode to is fragments.

An OpenAI model's name gives its vocabulary the benefit of the doubt, for a caller whose ids have
clearly been that vocabulary's. Where neither decides, the request is refused: an error is better
than a wrong vector. `docs/embeddings.md` has the figures.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import BadRequest
from cacheproxy.inference.openai_encodings import (
    ENCODING_NAMES,
    EncodingName,
    encoding_of_model,
    is_common_word,
    texts_of,
)
from cacheproxy.inference.plausibility import evidence_of
from cacheproxy.inference.tokenizer import Tokenizer

Vocabulary = Literal["own", EncodingName]

_VOCABULARIES: tuple[Vocabulary, ...] = ("own", *ENCODING_NAMES)

_ENOUGH: dict[Vocabulary, int] = {"own": 16, "cl100k_base": 100, "o200k_base": 100}
"""Ids of one request from which a round trip that only this vocabulary passes is enough. Measured
on English questions and headings, with the ids of another BPE vocabulary (50,000 tokens, GPT-2's
form): of requests with 13 to 16 ids, 34 % pass for exactly one of OpenAI's two, of those with 41 to
60 ids 1.7 %, and above that none of 850. For the model's own, a WordPiece vocabulary, 0.4 % pass
with 9 to 12 ids, none of 8,000 with more."""

_LEAD = 6.0
"""By how much the evidence (natural logarithm of odds) for one reading must exceed 0, and that for
every other one."""

_DOUBT = 1.5
"""By how much the evidence for the vocabulary that the model's name promises may be below another's
where it is still believed of a caller who has sent such ids: a single word is often another
ordinary word in another vocabulary."""

_FIRST_LEAD = 8.0
"""By how much it must exceed another's if nothing is known of the caller. It is more than `_LEAD`
because the evidence itself may be low here. Measured on 47,117 real texts, each from such a caller:
none is read wrongly, and of the promised ids of short texts (38,703 of at most 60 characters) 3.0 %
are refused. A reading that the model's name does not promise must lead others by as much: a name of
three words was read as `o200k_base` with a lead of 6.1."""

_MOST_CALLERS = 4_096
"""Callers of whom it is remembered whether they have sent what the model's name promises."""

_ADVICE = (
    "Send texts (LangChain: check_embedding_ctx_length=False), or let the server know whose ids "
    "they are, by its setting embeddings.token_ids. An alias of the model that is an OpenAI "
    "model's name, such as text-embedding-3-small, decides for callers who have sent longer texts."
)


class TokenIds:
    """Reads the token ids that clients send to one model."""

    def __init__(
        self, tokenizer: Tokenizer, thread: JobThread, only: Vocabulary | None = None
    ) -> None:
        """Prepare.

        `thread` does the work, so that neither loading a vocabulary nor long lists hold up the
        event loop. `only` is the one vocabulary that is accepted; None tells them apart.
        """
        self._tokenizer = tokenizer
        self._thread = thread
        self._only = only
        self._as_promised: dict[str, bool] = {}

    async def read(
        self,
        lists: Sequence[list[int]],
        model_name: str,
        caller: str = "",
        *,
        as_texts: bool = False,
    ) -> Sequence[str] | Sequence[list[int]]:
        """Return the lists if they are the model's own ids, else the texts that they stand for.

        `model_name` is the name under which the client asked for the model. `caller` says whose
        earlier requests may tell, too. `as_texts` has the model's own ids returned as texts.

        Raises:
            BadRequest: the ids are of no vocabulary that is known here, or may be of several.
        """
        name, texts = await self._thread.run(partial(self.tell, lists, model_name, caller))
        return lists if name == "own" and not as_texts else texts

    def tell(
        self, lists: Sequence[list[int]], model_name: str, caller: str = ""
    ) -> tuple[Vocabulary, list[str]]:
        """Return the vocabulary of the lists, and the text of each; see `read`."""
        if self._only is not None:
            if (texts := self._texts(self._only, lists)) is None:
                raise _unknown([self._only])
            return self._only, texts
        expected = encoding_of_model(model_name)
        if all(map(self._tokenizer.has_specials, lists)):
            own = self._texts("own", lists)
            if own is not None:
                self._learn(caller, "own", expected)
                return "own", own
        readings = self._readings(lists)
        if not readings:
            raise _unknown(_VOCABULARIES)
        evidence = {
            name: evidence_of(dict.fromkeys(texts), is_common_word)
            for name, texts in readings.items()
        }
        best = max(evidence, key=evidence.__getitem__)
        is_contested = len(readings) > 1 and best != expected
        needed = _FIRST_LEAD if is_contested else _LEAD
        if evidence[best] >= _LEAD and _lead(evidence, best) >= needed:
            self._learn(caller, best, expected)
            return best, readings[best]
        is_only = len(readings) == 1
        if is_only and (best == expected or sum(map(len, lists)) >= _ENOUGH[best]):
            return best, readings[best]
        if expected in evidence and self._is_believed(evidence, expected, caller):
            return expected, readings[expected]
        raise _ambiguous(list(readings))

    def _is_believed(
        self, evidence: dict[Vocabulary, float], expected: Vocabulary, caller: str
    ) -> bool:
        """Return whether a caller gets the benefit of the doubt that the model's name gives."""
        lead = _lead(evidence, expected)
        as_promised = self._as_promised.get(caller)
        if as_promised is None:
            return lead >= _FIRST_LEAD
        return as_promised and (lead >= _LEAD or (lead >= -_DOUBT and evidence[expected] >= 0))

    def _learn(self, caller: str, found: Vocabulary, expected: Vocabulary | None) -> None:
        """Remember whether a caller's ids have clearly been those that the name promises."""
        if expected is None:
            return
        self._as_promised.pop(caller, None)
        if len(self._as_promised) >= _MOST_CALLERS:
            del self._as_promised[next(iter(self._as_promised))]
        self._as_promised[caller] = found == expected

    def _readings(self, lists: Sequence[list[int]]) -> dict[Vocabulary, list[str]]:
        """Return the texts by each vocabulary that can have made the lists.

        Of those that the model reads alike there is one.
        """
        readings: dict[Vocabulary, list[str]] = {}
        read: list[list[list[int]]] = []
        for name in _VOCABULARIES:
            texts = self._texts(name, lists)
            if texts is not None and (ids := self._tokenizer.encode(texts)) not in read:
                readings[name] = texts
                read.append(ids)
        return readings

    def _texts(self, name: Vocabulary, lists: Sequence[list[int]]) -> list[str] | None:
        """Return the text of each list, or None unless all are canonical in the vocabulary."""
        if name != "own":
            return texts_of(name, lists)
        texts = []
        for ids in lists:
            text = self._tokenizer.text_of(ids)
            if text is None:
                return None
            texts.append(text)
        return texts


def _lead(evidence: dict[Vocabulary, float], name: Vocabulary) -> float:
    """Return by how much the evidence for one reading exceeds that for the best other one."""
    others = (value for other, value in evidence.items() if other != name)
    return evidence[name] - max(others, default=0.0)


def _ambiguous(names: Sequence[Vocabulary]) -> BadRequest:
    can_be = " and of ".join(_NAMES[name] for name in names)
    which = "which gives different texts" if len(names) > 1 else "and they are too few to show it"
    return BadRequest(
        f"The token ids can be those of {can_be}, {which}. {_ADVICE}",
        param="input",
        code="ambiguous_token_ids",
    )


def _unknown(tried: Sequence[Vocabulary]) -> BadRequest:
    names = " or ".join(_NAMES[name] for name in tried)
    return BadRequest(
        f"The token ids are not what {names} gives for any text. {_ADVICE}",
        param="input",
        code="unknown_token_ids",
    )


_NAMES: dict[Vocabulary, str] = {
    "own": "the model's own tokenizer",
    "cl100k_base": "cl100k_base",
    "o200k_base": "o200k_base",
}
