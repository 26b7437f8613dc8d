"""Whose token ids a request holds: the model's own, or those of a vocabulary of OpenAI's.

A list of ids carries no mark of the tokenizer that made it, and clients built for OpenAI send
`cl100k_base` to whatever model they are pointed at. Taken for the model's own, such ids give the
vector of another text, without an error. The test is a canonical round trip: ids that a tokenizer
gives again for the text that they decode to may be its own. All lists of a request come from one
tokenizer, so they are judged together. Short lists pass the test of several tokenizers by chance
(of single questions in English sent as cl100k_base, four in ten also pass for o200k_base). Where
the model would then read different texts, the request is refused, unless a setting or an OpenAI
model's name decides: an error is better than a wrong vector.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import BadRequest
from cacheproxy.inference.openai_encodings import (
    ENCODING_NAMES,
    EncodingName,
    encoding_of_model,
    texts_of,
)
from cacheproxy.inference.tokenizer import Tokenizer

Vocabulary = Literal["own", EncodingName]

Readings = Mapping[Vocabulary, list[str]]
"""The texts of a request's lists, by each vocabulary in which all lists are canonical."""

_ADVICE = (
    "send texts instead (LangChain: check_embedding_ctx_length=False), name the model by an alias "
    "that is an OpenAI model's name if the ids are of cl100k_base, or set embeddings.token_ids"
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

    async def read(
        self, lists: Sequence[list[int]], model_name: str, *, as_texts: bool = False
    ) -> Sequence[str] | Sequence[list[int]]:
        """Return the lists if they are the model's own ids, else the texts that they stand for.

        `model_name` is the name under which the client asked for the model. `as_texts` has the
        model's own ids returned as texts, too.

        Raises:
            BadRequest: the ids are of no vocabulary that is known here, or may be of several.
        """
        name, texts = await self._thread.run(partial(self.tell, lists, model_name))
        return lists if name == "own" and not as_texts else texts

    def tell(self, lists: Sequence[list[int]], model_name: str) -> tuple[Vocabulary, list[str]]:
        """Return the vocabulary of the lists, and their texts; see `read`."""
        expected = self._only or encoding_of_model(model_name)
        vocabularies: list[Vocabulary] = ["own", *ENCODING_NAMES]
        if expected is not None:
            if (texts := self._texts(expected, lists)) is not None:
                return expected, texts
            vocabularies.remove(expected)
        if self._only is not None:
            raise _unknown([self._only])
        readings = {
            name: texts for name in vocabularies if (texts := self._texts(name, lists)) is not None
        }
        if not readings:
            raise _unknown(["own", *ENCODING_NAMES])
        if self._differ(readings):
            raise _ambiguous(readings)
        return next(iter(readings.items()))

    def _texts(self, name: Vocabulary, lists: Sequence[list[int]]) -> list[str] | None:
        if name != "own":
            return texts_of(name, lists)
        texts = []
        for ids in lists:
            text = self._tokenizer.text_of(ids)
            if text is None:
                return None
            texts.append(text)
        return texts

    def _differ(self, readings: Readings) -> bool:
        """Return whether the model would read different ids, depending on the vocabulary."""
        first, *others = readings.values()
        if not others:
            return False
        first_ids = self._tokenizer.encode(first)
        return any(self._tokenizer.encode(texts) != first_ids for texts in others)


def _unknown(tried: Sequence[Vocabulary]) -> BadRequest:
    return BadRequest(
        f"the token ids are not of {_names(tried, 'nor of')}, or not as it would encode a text; "
        + _ADVICE,
        param="input",
        code="unknown_token_ids",
    )


def _ambiguous(readings: Readings) -> BadRequest:
    return BadRequest(
        f"the token ids can be read as those of {_names([*readings], 'and of')}, "
        f"which gives different texts; {_ADVICE}",
        param="input",
        code="ambiguous_token_ids",
    )


def _names(vocabularies: Sequence[Vocabulary], joint: str) -> str:
    names = ["the model's own tokenizer" if name == "own" else name for name in vocabularies]
    return f" {joint} ".join(names)
