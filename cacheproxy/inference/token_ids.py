"""Whose token ids a request holds: the model's own, or those of a vocabulary of OpenAI's.

A list of ids carries no mark of the tokenizer that made it, and clients built for OpenAI send
`cl100k_base` to whatever model they are pointed at. Taken for the model's own, such ids give the
vector of another text, without an error. The test is a canonical round trip: ids that a tokenizer
gives again for the text that they decode to may be its own. All lists of a request come from one
tokenizer, so they are judged together.

Short lists pass by chance. Measured on English questions and headings, with the ids of
another BPE vocabulary (50,000 tokens, GPT-2's form): of requests with 13 to 16 ids, 34 % pass for
exactly one of OpenAI's two vocabularies, of those with 41 to 60 ids 1.7 %, and above that none of
850. For the model's own, a WordPiece vocabulary, 0.4 % pass with 9 to 12 ids, none of 8,000 with
more. So the number of ids decides whether passing is evidence. Where it is not, a setting or an
OpenAI model's name must say whose ids they are, or the request is refused: an error is better than
a wrong vector.
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
    texts_of,
)
from cacheproxy.inference.tokenizer import Tokenizer

Vocabulary = Literal["own", EncodingName]

_OWN_ENOUGH = 16
"""Ids of one request from which passing shows that they are the model's own."""

_OPENAI_ENOUGH = 100
"""Ids of one request from which passing shows that they are of one of OpenAI's vocabularies."""

_ADVICE = (
    "Send texts (LangChain: check_embedding_ctx_length=False), or let the server know whose ids "
    "they are: by its setting embeddings.token_ids, or, for cl100k_base, by an alias of the model "
    "that is an OpenAI model's name, such as text-embedding-3-small."
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
        """Return the vocabulary of the lists, and the text of each; see `read`."""
        if self._only is not None:
            if (texts := self._texts(self._only, lists)) is None:
                raise _unknown([self._only])
            return self._only, texts
        count = sum(map(len, lists))
        is_marked = all(map(self._tokenizer.has_specials, lists))
        if is_marked or count >= _OWN_ENOUGH:
            own = self._texts("own", lists)
            if own is not None:
                return "own", own
        expected = encoding_of_model(model_name)
        if expected is not None and (texts := self._texts(expected, lists)) is not None:
            return expected, texts
        if count < _OPENAI_ENOUGH:
            raise _too_few(count)
        found = [
            (name, texts)
            for name in ENCODING_NAMES
            if name != expected and (texts := self._texts(name, lists)) is not None
        ]
        if not found:
            raise _unknown(["own", *ENCODING_NAMES])
        if self._differ([texts for _, texts in found]):
            raise _ambiguous([name for name, _ in found])
        return found[0]

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

    def _differ(self, readings: Sequence[list[str]]) -> bool:
        """Return whether the model would read different ids, depending on the vocabulary."""
        if len(readings) == 1:
            return False
        first, *others = map(self._tokenizer.encode, readings)
        return any(ids != first for ids in others)


def _too_few(count: int) -> BadRequest:
    return BadRequest(
        f"The token ids are not shown to be the model's own, and {count} of them are too few to "
        f"tell those of {' and '.join(ENCODING_NAMES)} by ({_OPENAI_ENOUGH} in a request are "
        f"enough). {_ADVICE}",
        param="input",
        code="ambiguous_token_ids",
    )


def _ambiguous(names: Sequence[Vocabulary]) -> BadRequest:
    return BadRequest(
        f"The token ids can be those of {' and of '.join(names)}, which gives different texts. "
        + _ADVICE,
        param="input",
        code="ambiguous_token_ids",
    )


def _unknown(tried: Sequence[Vocabulary]) -> BadRequest:
    names = ["the model's own tokenizer" if name == "own" else name for name in tried]
    return BadRequest(
        f"The token ids are not what {' or '.join(names)} gives for any text. {_ADVICE}",
        param="input",
        code="unknown_token_ids",
    )
