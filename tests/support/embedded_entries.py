"""An embedded store opened for a test, and entries to put into it."""

import asyncio
import itertools
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from opened_stores import key

from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Entry, Partition

PARTITION = Partition("0123456789abcdef" * 2, "model")
NOW = 1_700_000_000.0
LATER = NOW + 3600.0


def entries(names, record=b"record", *, expires_at=LATER, partition=PARTITION, probes=None):
    rows = itertools.repeat(None) if probes is None else probes
    return [
        Entry(key(name), partition, record, expires_at, (), probe)
        for name, probe in zip(names, rows, strict=False)
    ]


@asynccontextmanager
async def opened(path: Path | None, *, max_bytes: int = 2**30, now=lambda: NOW, **more):
    store = EmbeddedStore(path, max_bytes=max_bytes, now=now, **more)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def nearest_once_ready(store, probe: np.ndarray, partition=PARTITION):
    """Return the neighbour; a graph that is being rebuilt has 30 s to be done."""
    async with asyncio.timeout(30):
        while True:
            (found,) = await store.nearest(partition, probe[None])
            if found is not None:
                return found


def set_aside(path: Path) -> list[Path]:
    aside = path.parent.glob(f"{path.name}.set-aside-*")
    return [file for file in aside if not file.name.endswith(("-wal", "-shm"))]
