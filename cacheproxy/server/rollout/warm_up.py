"""The warm-up: a new server asks itself what is often asked for, before it is ready.

It serves whatever comes meanwhile; only `/readyz` says 503, so that a balancer waits. The texts are
those of another server's recording, the most frequent ones first, or of a file. A server becomes
ready however the warm-up ends: at its deadline, or without the file, it says so in its log and
in a metric. Each worker warms up; what one has stored is a hit for the next.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import islice

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import CacheproxyError, Overloaded
from cacheproxy.fairness.owner import work_for
from cacheproxy.inference.inputs import InputReader
from cacheproxy.keys import Namespace, owner_of
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import DEFAULT_CONTROL, ItemsRequest
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.settings.sections import WarmSettings
from cacheproxy.telemetry.rollout_metrics import RolloutMetrics

logger = logging.getLogger(__name__)

_TEXTS = 64
"""Texts of one request."""

_IN_FLIGHT = 2
"""Requests at a time: the next one is ready when the engine is done with one."""

_RETRY_S = 0.2


class WarmUp:
    """Asks each route for the texts; belongs to the event loop.

    Attributes:
        not_ready_because: why the server is not ready; None once it is.
    """

    def __init__(
        self,
        settings: WarmSettings,
        routes: Sequence[tuple[ItemsRoute[EmbeddingRecord], InputReader]],
        metrics: RolloutMetrics,
        *,
        in_any_order: bool,
    ) -> None:
        """Prepare.

        Args:
            settings: what is asked for.
            routes: of the models that this process infers, with what reads their inputs.
            metrics: tell how far it has come.
            in_any_order: whether to shuffle, so that workers do not all begin with the same texts.
        """
        self._settings = settings
        self._namespace = Namespace(settings.tenant, settings.namespace)
        self._routes = routes
        self._share = metrics.warm_up
        self._in_any_order = in_any_order
        self._all = self._done = self._failed = 0
        self.not_ready_because: str | None = "warming up"
        self._share.set(0)

    def start(self, running: AsyncExitStack) -> None:
        """Begin; `running` stops it."""
        task = asyncio.create_task(self._run())
        running.push_async_callback(stop_tasks, task)

    async def _run(self) -> None:
        work_for(owner_of(self._namespace.id))
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                await self._ask_all()
        except TimeoutError:
            logger.warning(
                "the warm-up had only %g s, for %d of %d texts; ready all the same",
                self._settings.deadline_s,
                self._done,
                self._all,
            )
        except CacheproxyError as error:
            logger.error("no warm-up (%s); ready all the same", error)
        except Exception:
            logger.exception("the warm-up has failed; ready all the same")
        else:
            self._share.set(1)
            logger.info(
                "warmed up with %d texts in %.1f s%s; ready",
                self._all,
                time.monotonic() - started,
                f", {self._failed} of them without a result" if self._failed else "",
            )
        finally:
            self.not_ready_because = None

    async def _ask_all(self) -> None:
        texts = await asyncio.to_thread(_read, self._settings, self._namespace)
        batches = [texts[i : i + _TEXTS] for i in range(0, len(texts), _TEXTS)]
        if self._in_any_order:
            random.shuffle(batches)
        self._all = len(texts) * len(self._routes)
        waiting = iter([(*route, batch) for batch in batches for route in self._routes])

        async def ask_on() -> None:
            for route, reader, batch in waiting:
                await self._ask(route, reader, batch)
                self._done += len(batch)
                self._share.set(self._done / self._all)
                self.not_ready_because = f"warming up: {self._done} of {self._all} texts"

        async with asyncio.TaskGroup() as group:
            for _ in range(_IN_FLIGHT):
                group.create_task(ask_on())

    async def _ask(
        self, route: ItemsRoute[EmbeddingRecord], reader: InputReader, texts: Sequence[str]
    ) -> None:
        """Have a model embed texts; an overload passes, other errors are counted."""
        while True:
            try:
                inputs = await reader.read(texts, self._settings.role, route.model.name)
                await route.serve(ItemsRequest(self._namespace, inputs, DEFAULT_CONTROL))
            except Overloaded:
                await asyncio.sleep(_RETRY_S)
            except CacheproxyError as error:
                if not self._failed:
                    logger.warning("a part of the warm-up has no result: %s", error)
                self._failed += len(texts)
                return
            else:
                return


def _read(settings: WarmSettings, namespace: Namespace) -> list[str]:
    """Return the texts, without repetitions; raises `ConfigError` if there are none to be read."""
    # Imported late: a server without a warm-up needs none of it.
    from cacheproxy.ingest.readers import Columns, Position, read_rows
    from cacheproxy.ingest.recorded import most_asked
    from cacheproxy.server.completions import DIALECTS

    if settings.recording is not None:
        others = [dialect.name for dialect in DIALECTS]
        rows = iter(most_asked(settings.recording, namespace, settings.most, other_routes=others))
    else:
        rows = read_rows([str(settings.texts)], Columns(), None, Position())
    texts = dict.fromkeys(row.text for row in rows if row.text)
    return list(islice(texts, settings.most))
