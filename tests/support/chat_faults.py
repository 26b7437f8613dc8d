"""Upstreams that fail in the middle of a chat answer, and the check that the next one is whole."""

from chatting import ask, status_of, text_of
from upstream import answer_to, chunks


def check_next_is_well(server, question):
    """Nothing of what went wrong was stored, and the same question is answered now."""
    response = ask(server, question)
    assert text_of(response) == answer_to(question)
    assert "fwd=miss; stored" in status_of(response)


async def stalls(exchange):
    await exchange.left.wait()


def begins_then(then):
    """Return a behaviour that streams two chunks, and then does something else."""

    async def behave(exchange):
        await exchange.begin_stream()
        for chunk in chunks(exchange.asked)[:3]:
            await exchange.event(chunk)
        await then(exchange)

    return behave
