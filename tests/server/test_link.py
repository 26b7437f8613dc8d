"""A worker's answers to its supervisor, over the socket that is between them."""

import asyncio
import socket

from cacheproxy.server.link import Channel, Count, Counted, WorkerLink
from cacheproxy.telemetry.metrics import Metrics


async def next_count(messages) -> Counted:
    async with asyncio.timeout(30):
        answer = await anext(messages)
    assert isinstance(answer, Counted)
    return answer


def asked(counted: Counted) -> float:
    (family,) = (one for one in counted.families if one.name == "cacheproxy_requests")
    return sum(one.value for one in family.samples if one.name == "cacheproxy_requests_total")


async def test_a_worker_answers_with_counts_no_older_than_the_question():
    ours, theirs = socket.socketpair()
    metrics, worker = Metrics(), WorkerLink(theirs)
    await worker.open(metrics, reloading=None, on_stop=lambda _: None)
    supervisor = await Channel.open(ours)
    messages = supervisor.messages()

    supervisor.send(Count(1))
    assert (await next_count(messages)).number == 1
    # While these are counted, another request is answered and counts are asked for again.
    supervisor.send(Count(2))
    metrics.requests.labels("embeddings", "m", "200").inc()
    supervisor.send(Count(3))
    counted = await next_count(messages)
    while counted.number < 3:
        counted = await next_count(messages)

    assert asked(counted) == 1
    metrics.requests.labels("embeddings", "m", "200").inc()
    await worker.close()
    assert asked(await next_count(messages)) == 2
    await supervisor.close()
