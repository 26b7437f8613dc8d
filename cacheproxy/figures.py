"""The figures of a cache as an operator reads them."""

from collections.abc import Iterator, Mapping
from typing import Any

_MOST_NAMESPACES = 20


def describe(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that `cacheproxy stats` prints."""
    store = figures["store"]
    yield f"store: {store['kind']}, entries {store['entries']:,}, {_size(store['size_bytes'])}"
    for namespace in store["namespaces"][:_MOST_NAMESPACES]:
        name = f"{namespace['tenant']}/{namespace['namespace']}" if "tenant" in namespace else ""
        yield f"  namespace {namespace['id']}{namespace['entries']:>14,}  {name}".rstrip()
    more = len(store["namespaces"]) - _MOST_NAMESPACES
    if more > 0:
        yield f"  and {more:,} more"
    if "lookups" not in figures:
        return
    hot = figures["hot"]
    yield f"hot tier of this server: entries {hot['entries']:,}, {_size(hot['size_bytes'])}"
    for tier, counts in figures["lookups"].items():
        asked = sum(counts.values())
        if asked:
            share = counts.get("hit", 0) / asked
            yield f"  {tier:<9}{share:>6.1%} hits of {asked:,} lookups since the start"
    heard = "heard" if figures["purges"]["heard"] else "NOT HEARD"
    yield f"purges by other processes: {heard}"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "size unknown"
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
