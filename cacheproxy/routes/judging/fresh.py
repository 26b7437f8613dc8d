"""One more answer to a client's question: what the judge compares a rejected answer with.

A rejection is asked about a second time, with a fresh answer to the same question as the reference.
For a cached answer that was looked up on a miss it is at hand: the answer that the client got. For
a control, which is that very answer, and for a semantic hit it is generated, by the client's own
request. So a reference is always another answer of the same model to the same question, whatever
is judged, and the rates that are measured on controls are those of the pairs.

What else was considered: the answer itself as a control's reference is accepted trivially, so that
false rejects look rarer than they are (nothing opens); the cached answer as a control's reference
is as wrong as the pair, so that what is rejected of both is the same (everything opens); and a
reference in the first question as well needs a generation for every control, where this one needs
it for the few that are rejected: see the figures in docs/measurements.md.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cacheproxy.errors import UpstreamFailed
from cacheproxy.routes.dialects.dialect import Dialect
from cacheproxy.routes.dialects.request import CompletionRequest
from cacheproxy.routes.judging.costs import Costs
from cacheproxy.routes.judging.judge import Spend
from cacheproxy.upstreams.fallback import Upstreams

Ask = Callable[[], Awaitable[str]]
"""Gives one more answer.

Raises `UpstreamFailed` or `Unavailable` where there is none.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's request, as far as it is needed behind its answer.

    Attributes:
        question: its last user turn with the conversation before it, as a judge reads it.
        request: as it was parsed.
        client: its headers.
    """

    question: str
    request: CompletionRequest
    client: Mapping[bytes, bytes]


class FreshAnswers:
    """Asks the models that clients ask."""

    def __init__(self, upstreams: Upstreams, dialects: Mapping[str, Dialect], costs: Costs) -> None:
        """Prepare; `dialects` are by name."""
        self._upstreams = upstreams
        self._dialects = dialects
        self._costs = costs

    def of(self, asked: Asked, spend: Spend) -> Ask | None:
        """Return what gives one more answer to a request; None if there are none to be had.

        `spend` takes what the answer has cost.

        There are none where an upstream takes the callers' own keys, and where a request asks for
        the same answer each time: that one, as a control's reference, would decide the verdict.
        """
        request = asked.request
        if self._upstreams.passes_authorization(request.model) or _is_fixed(request.fields):
            return None
        return lambda: self._answer(asked, spend)

    async def _answer(self, asked: Asked, spend: Spend) -> str:
        request = asked.request
        dialect = self._dialects[request.dialect]
        body = request.plain_body()
        response = await self._upstreams.post(request.model, dialect.path, body, asked.client)
        try:
            status, data = response.head.status, await response.read()
        finally:
            response.close()
        completion = dialect.read(data) if status == 200 else None
        if completion is None or completion.calls_tools:
            raise UpstreamFailed(f"{request.model} gave no second answer (status {status})")
        tokens = completion.prompt_tokens, completion.completion_tokens
        if not completion.has_usage:
            tokens = len(body) // 4, len(completion.text) // 4
        spend("reference", self._costs.of(request.model, *tokens), sum(tokens))
        return completion.text


def _is_fixed(fields: Mapping[str, Any]) -> bool:
    return fields.get("temperature") == 0 or fields.get("seed") is not None
