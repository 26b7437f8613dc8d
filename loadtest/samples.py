"""What one exchange came to: a row of fixed size, as generators hand them over."""

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.connection import Exchange

TIERS = ("hot", "exact", "semantic", "miss", "mixed", "bypass", "hit", "none")
"""What `Cache-Status` says of an answer: mixed in a batch, bypass of what is never cached, hit
where the cache names no tier, none where there is no such header or no answer."""

TEXT_TIERS = TIERS[:4]

_ROW = struct.Struct("<BIfIIIHBBHHHH")
SAMPLE = np.dtype(
    [
        ("stream", "u1"),
        ("index", "<u4"),
        ("due_s", "<f4"),
        ("lag_us", "<u4"),
        ("first_us", "<u4"),
        ("whole_us", "<u4"),
        ("status", "<u2"),
        ("tier", "u1"),
        ("retry_after", "u1"),
        *((tier, "<u2") for tier in TEXT_TIERS),
    ]
)
Samples = NDArray[Any]

_BROKEN = 1
"""In place of a status: the answer's status was 200, and the stream ended too early."""

_COUNT = re.compile(r"(\w+)=(\d+)")
_DETAIL = re.compile(r'detail="?([\w=,]+)')


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """What a `Cache-Status` header says: the answer's tier, and its texts' ones by `TEXT_TIERS`."""

    tier: str
    texts: tuple[int, int, int, int]


def read_cache_status(value: bytes, texts: int) -> CacheStatus:
    """Return what the header (RFC 9211) of an answer to so many texts says."""
    # What changes from answer to answer is its ttl.
    return _read(b";".join(part for part in value.split(b";") if b"ttl=" not in part), texts)


@lru_cache(4_096)
def _read(value: bytes, texts: int) -> CacheStatus:
    said = value.decode("latin-1")
    found = _DETAIL.search(said)
    detail = found.group(1) if found else ""
    if counts := dict(_COUNT.findall(detail)):
        by_tier = [int(counts.get(tier, 0)) for tier in TEXT_TIERS]
        return CacheStatus("mixed", (by_tier[0], by_tier[1], by_tier[2], by_tier[3]))
    if "fwd=bypass" in said:
        tier = "bypass"
    elif "fwd=" in said:
        tier = "miss"
    elif "hit" in said:
        tier = detail if detail in TEXT_TIERS else "hit"
    else:
        tier = "none"
    hot, exact, semantic, miss = (texts if tier == one else 0 for one in TEXT_TIERS)
    return CacheStatus(tier, (hot, exact, semantic, miss))


def pack_sample(exchange: Exchange, *, start: float, now: float, texts: int, whole: bool) -> bytes:
    """Return an exchange's row; `whole` is whether a streamed answer came to its end.

    Latencies count from the moment at which the request was to be sent: what a stalled server
    makes wait is counted, too.
    """
    status = exchange.status
    if status == 200 and not whole:
        status = _BROKEN
    if status == 200:
        said = read_cache_status(exchange.cache_status, texts)
    else:
        said = CacheStatus("none", (0, 0, 0, 0))
    due = exchange.due
    return _ROW.pack(
        exchange.stream,
        exchange.index,
        due - start,
        _us(exchange.sent - due),
        _us(exchange.first - due),
        _us(now - due),
        status,
        TIERS.index(said.tier),
        exchange.retry_after,
        *said.texts,
    )


def read_samples(rows: bytes) -> Samples:
    """Return the rows as an array."""
    samples: Samples = np.frombuffer(rows, SAMPLE)
    return samples


def _us(seconds: float) -> int:
    return min(max(int(seconds * 1e6), 0), 2**32 - 1)
