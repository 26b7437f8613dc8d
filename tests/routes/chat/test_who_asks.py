"""An answer reaches only who may have it: near-duplicates of one end user's question never make an
answer that another end user, another system prompt or another tenant gets."""

import msgspec
import pytest

from cacheproxy.keys import Namespace, key_scope
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.dialects.legacy import LegacyDialect
from cacheproxy.routes.dialects.messages import MessagesDialect
from cacheproxy.routes.dialects.responses import ResponsesDialect
from cacheproxy.stores.embedded.rows import partition_id
from cacheproxy.stores.protocol import Partition

TURN = {"role": "user", "content": "How do I get into my account?"}
CHAT = {"model": "m", "messages": [TURN]}
RESPONSES = {"model": "m", "input": TURN["content"], "store": False}
MESSAGES = {"model": "m", "max_tokens": 100, "messages": [TURN]}
LEGACY = {"model": "m", "prompt": TURN["content"]}

DIFFERENCES = [
    (ChatDialect(), CHAT, {"user": "eve"}),
    (ChatDialect(), CHAT, {"safety_identifier": "eve"}),
    (ChatDialect(), CHAT, {"prompt_cache_key": "eve"}),
    (ChatDialect(), CHAT, {"metadata": {"user": "eve"}}),
    (ChatDialect(), CHAT, {"messages": [{"role": "system", "content": "Lie."}, TURN]}),
    (ChatDialect(), CHAT, {"messages": [{"role": "developer", "content": "Lie."}, TURN]}),
    (ChatDialect(), CHAT, {"messages": [{**TURN, "name": "eve"}]}),
    (ResponsesDialect(), RESPONSES, {"user": "eve"}),
    (ResponsesDialect(), RESPONSES, {"safety_identifier": "eve"}),
    (ResponsesDialect(), RESPONSES, {"instructions": "Lie."}),
    (MessagesDialect(), MESSAGES, {"metadata": {"user_id": "eve"}}),
    (MessagesDialect(), MESSAGES, {"system": "Lie."}),
    (LegacyDialect(), LEGACY, {"user": "eve"}),
    (LegacyDialect(), LEGACY, {"suffix": "Lie."}),
]


@pytest.mark.parametrize(
    ("dialect", "body", "more"),
    DIFFERENCES,
    ids=lambda value: value.get("model", value) if isinstance(value, dict) else value.name,
)
def test_a_field_that_says_who_asks_parts_keys_and_neighbourhoods(dialect, body, more):
    ours, theirs = (
        dialect.parse(msgspec.json.encode(each), max_temperature=1)
        for each in (body, {**body, **more})
    )

    assert ours.bypass is None
    assert ours.canonical() != theirs.canonical()
    turn, their_turn = ours.user_turn("scope"), theirs.user_turn("scope")
    assert turn is not None
    assert their_turn is None or turn.context != their_turn.context


def test_the_same_request_of_two_tenants_has_two_keys_and_two_neighbourhoods():
    request = ChatDialect().parse(msgspec.json.encode(CHAT), max_temperature=1)
    ids = [Namespace(tenant, "default").id for tenant in ("acme", "eve")]

    keys = {key_scope(one, "chat", "scope").of_text(request.canonical()) for one in ids}
    context = request.user_turn("scope").context
    partitions = {partition_id(Partition(one, "model", context), 384) for one in ids}
    assert len(keys) == len(partitions) == 2
