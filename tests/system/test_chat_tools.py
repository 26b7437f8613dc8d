"""`chat.cache_tools`: calls of tools from the exact tiers, whole and streamed, at temperature 0."""

import json

import pytest
from server_process import Server
from upstream import chunks, completion

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Ulm"}'}},
    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Rom"}'}},
]


async def calls_tools(exchange) -> None:
    """Answer with two calls, whose arguments come in pieces if they are streamed."""
    asked = exchange.asked
    if not asked.body.get("stream"):
        message = {"role": "assistant", "content": None, "tool_calls": CALLS}
        answer = completion(asked, "", message=message, finish_reason="tool_calls")
        await exchange.answer(200, json.dumps(answer).encode())
        return
    first, *_, last = chunks(asked, "", "tool_calls")
    await exchange.begin_stream()
    for index, call in enumerate(CALLS):
        name, arguments = call["function"].values()
        begun = {**call, "function": {"name": name, "arguments": ""}}
        parts = [begun, *({"function": {"arguments": letter}} for letter in arguments)]
        for part in parts:
            delta = {"tool_calls": [{"index": index, **part}]}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await exchange.event({**first, "choices": [choice]})
    await exchange.event(last)
    await exchange.end_stream()


@pytest.fixture(scope="module")
def tooled(model_home, upstream, tmp_path_factory):
    """A server on which one namespace asks for cached tool calls."""
    file = tmp_path_factory.mktemp("tools") / "cacheproxy.toml"
    file.write_text('[namespace_cache_tools.default]\nagents = "on"\n')
    flags = ("--drain-s", "0", "--config", str(file), "--upstream", upstream.url)
    server = Server(model_home, "memory://", *flags)
    yield server
    assert server.stop() == 0, server.log


def ask(server, question, namespace="agents", **more):
    client = server.client(default_headers={"x-cacheproxy-namespace": namespace})
    given = {"temperature": 0, "tools": TOOLS, **more}
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="gpt-test", messages=messages, **given)


def told_by(answer) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of each call, by the official client's reading."""
    calls = answer.choices[0].message.tool_calls
    return [(call.id, call.function.name, call.function.arguments) for call in calls]


def told_in(stream) -> list[tuple[str, str, str]]:
    """Return the same of a stream, put together as the SDK's documentation does it."""
    calls: dict[int, list[str]] = {}
    for chunk in stream:
        for choice in chunk.choices:
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, ["", "", ""])
                call[0] += part.id or ""
                call[1] += part.function.name or ""
                call[2] += part.function.arguments or ""
    return [tuple(calls[index]) for index in sorted(calls)]


EXPECTED = [(call["id"], *call["function"].values()) for call in CALLS]


@pytest.mark.parametrize("asks_stream_first", [False, True])
def test_calls_are_cached_whole_and_streamed(tooled, upstream, asks_stream_first):
    question = f"Weather in Ulm and Rome? {asks_stream_first}"
    # A stream without usage answers no request that is told its usage.
    expected = 2 if asks_stream_first else 1
    upstream.plan.extend([calls_tools] * expected)
    before = len(upstream)

    for is_stream in (asks_stream_first, True, False):
        answer = ask(tooled, question, stream=is_stream)
        assert (told_in if is_stream else told_by)(answer) == EXPECTED

    assert len(upstream) == before + expected


def test_a_conversation_with_results_of_tools_is_cached(tooled, upstream):
    messages = [
        {"role": "user", "content": "Weather in Ulm?"},
        {"role": "assistant", "content": None, "tool_calls": CALLS[:1]},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]
    before = len(upstream)

    for _ in range(2):
        client = tooled.client(default_headers={"x-cacheproxy-namespace": "agents"})
        client.chat.completions.create(
            model="gpt-test", messages=messages, tools=TOOLS, temperature=0
        )

    assert len(upstream) == before + 1


@pytest.mark.parametrize(
    ("namespace", "more"),
    [("default", {}), ("agents", {"temperature": 0.5}), ("agents", {"n": 2})],
    ids=["another namespace", "warm", "several choices"],
)
def test_nothing_else_is_cached(tooled, upstream, namespace, more):
    before = len(upstream)

    for _ in range(2):
        ask(tooled, f"Weather? {namespace} {more}", namespace, **more)

    assert len(upstream) == before + 2


def test_other_words_are_another_call(tooled, upstream):
    before = len(upstream)

    ask(tooled, "What is the weather in Paris?")
    ask(tooled, "How is the weather in Paris?")

    assert len(upstream) == before + 2
