"""What a server says at its start of a Redis that is not as it should be."""

import asyncio
import logging

from cacheproxy.errors import CacheproxyError
from cacheproxy.settings.settings import Settings

_log = logging.getLogger(__name__)

_MOST_S = 10.0

_SAID_BY_THE_STORE = ("connection", "query engine", "database")


async def tell_of_store(settings: Settings) -> None:
    """Log each finding of a short examination that is no "ok"; nothing is written to the store."""
    if settings.redis_url is None:
        return
    from cacheproxy.stores.doctor.examination import examine_servers

    try:
        async with asyncio.timeout(_MOST_S):
            async for finding in examine_servers(settings.redis_url, settings, briefly=True):
                if finding.level != "ok" and finding.check not in _SAID_BY_THE_STORE:
                    _log.warning("store: %s", finding.line)
    except (CacheproxyError, TimeoutError) as error:
        _log.info("the store was not examined: %s", error or "no answer in time")
