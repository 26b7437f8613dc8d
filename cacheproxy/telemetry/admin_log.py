"""The log of what operators do: who, what, when and with what result; never a text, never a key.

Lines go through the ordinary log, at level info, under a name of their own
(`cacheproxy.admin_actions`), so that a collector can keep them apart.
"""

import logging

logger = logging.getLogger("cacheproxy.admin_actions")

Fact = str | int


def tell_action(action: str, actor: str, result: str, **facts: Fact) -> None:
    """Log one action: what was done, by the id of which key, and how it ended."""
    fields = {"action": action, "by": actor, "result": result, **facts}
    logger.info("admin action", extra={"fields": fields})
