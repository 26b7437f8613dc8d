"""The outcome of one exchange as a row of fixed size, in which generators hand it over."""

import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .connection import NO_ANSWER, Exchange

TIERS = ("hot", "exact", "semantic", "miss", "mixed", "bypass", "hit", "none")
"""Where an answer came from, by its `Cache-Status`. A batch may be `mixed`; `bypass` is what is
never cached; `hit` is a hit of a cache that names no tier; `none` is an answer without the header,
or no answer."""

TEXT_TIERS = TIERS[:4]

_ROW = struct.Struct("<BIfIIIHBBHHHHIII")
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
        ("first_token_us", "<u4"),
        ("last_token_us", "<u4"),
        ("tokens", "<u4"),
    ]
)
Samples = NDArray[Any]

CUT_SHORT = 1
"""Stands in place of a status when the status was 200, but the stream ended too early."""

_NAMES = {NO_ANSWER: "no answer", CUT_SHORT: "stream cut short"}

_COUNT = re.compile(r"(\w+)=(\d+)")
_DETAIL = re.compile(r'detail="?([\w=,]+)')


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The tier of an answer, and the number of its texts by `TEXT_TIERS`."""

    tier: str
    texts: tuple[int, int, int, int]


def read_cache_status(value: bytes, texts: int) -> CacheStatus:
    """Return what the header (RFC 9211) says of an answer to a number of texts."""
    # The ttl changes from answer to answer and would defeat the memo.
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
    """Return the row of an exchange; `whole` says whether a streamed answer was complete.

    Latencies count from when the request was due, so that the queue behind a stalled server is
    measured, too.
    """
    status = exchange.status
    if status == 200 and not whole:
        status = CUT_SHORT
    if status == 200:
        said = read_cache_status(exchange.cache_status, texts)
    else:
        said = CacheStatus("none", (0, 0, 0, 0))
    due, pieces = exchange.due, exchange.pieces
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
        _us(pieces.first - due) if pieces else 0,
        _us(pieces.last - due) if pieces else 0,
        pieces.tokens if pieces else 0,
    )


def read_samples(rows: bytes) -> Samples:
    """Return the rows as an array."""
    samples: Samples = np.frombuffer(rows, SAMPLE)
    return samples


def describe_statuses(statuses: NDArray[Any], *, allowed: Sequence[int]) -> str:
    """Return in words how many requests got another status than these; "" if none did."""
    counts = Counter(statuses.tolist())
    failed = {status: count for status, count in sorted(counts.items()) if status not in allowed}
    if not failed:
        return ""
    named = ", ".join(f"{_NAMES.get(code, code)} ({count})" for code, count in failed.items())
    return f"{sum(failed.values())} of {len(statuses)} requests failed: {named}"


def _us(seconds: float) -> int:
    return min(max(int(seconds * 1e6), 0), 2**32 - 1)
