"""Formats the figures of a cache as text for operators."""

from collections.abc import Iterator, Mapping
from typing import Any

_MOST_NAMESPACES = 20


def describe(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that `cacheproxy stats` prints."""
    store = figures["store"]
    yield f"store: {store['kind']}, entries {store['entries']:,}, {_size(store['size_bytes'])}"
    for namespace in store["namespaces"][:_MOST_NAMESPACES]:
        line = f"  namespace {namespace['id']}{namespace['entries']:>14,}  {_name(namespace)}"
        yield line.rstrip()
    more = len(store["namespaces"]) - _MOST_NAMESPACES
    if more > 0:
        yield f"  and {more:,} more"
    yield from _semantic(figures["semantic"])
    if "chat" in figures["semantic"]:
        yield from _chat(figures["semantic"]["chat"])
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


def _semantic(semantic: Mapping[str, Any]) -> Iterator[str]:
    if semantic["mode"] == "off":
        yield "semantic tier: off"
        return
    if semantic["fixed_threshold"] is not None:
        yield f"semantic tier: serves from score {semantic['fixed_threshold']:g}, without a promise"
        return
    yield (
        f"semantic tier: at most {100 * semantic['max_error']:.3g} % of the hits below cosine"
        f" {semantic['min_similarity']:g}, with confidence {semantic['confidence']:g}"
    )
    for namespace in semantic["namespaces"][:_MOST_NAMESPACES]:
        yield f"  {namespace['model']}: namespace {namespace['id']}  {_name(namespace)}".rstrip()
        for threshold in namespace["thresholds"]:
            yield f"    {_standing(threshold)}"
        if namespace["hits"]:
            spared_s = namespace["spared_s"]
            yield f"    {namespace['hits']:,} hits saved {spared_s:,.1f} s of inference"
        if namespace["is_aside"]:
            yield "    stepped aside: lookups cost more than they save"
        alarms = [f"{kind} {count}" for kind, count in namespace["alarms"].items() if count]
        if alarms:
            yield f"    alarms: {', '.join(alarms)}"


def _chat(chat: Mapping[str, Any]) -> Iterator[str]:
    if chat["mode"] == "off":
        yield "chat: semantic tier off"
        return
    if chat["fixed_threshold"] is not None:
        yield f"chat: serves from cosine {chat['fixed_threshold']:g}, without a promise"
        return
    yield (
        f"chat: at most {100 * chat['max_error']:.3g} % of semantic hits do not answer the"
        f" question, with confidence {chat['confidence']:g}"
    )
    for model, one in chat["models"].items():
        judge = "no judge" if one["judge"] is None else f"judge {one['judge']}"
        requests = sum(one["own_requests"].values())
        yield (
            f"  {model}: {judge}, {requests:,} requests by the proxy itself,"
            f" {one['own_cost_share']:.1%} of the clients' cost"
        )
        for namespace in one["namespaces"][:_MOST_NAMESPACES]:
            yield f"    namespace {namespace['id']}  {_name(namespace)}".rstrip()
            yield f"      {namespace['story']}"


def _standing(threshold: Mapping[str, Any]) -> str:
    told = f"cosine {threshold['min_similarity']:<5g} {threshold['state']:<9}"
    if threshold["threshold"] is not None:
        told += f" from score {threshold['threshold']:g},"
    told += (
        f" wrong {threshold['error_estimate']:.2%}, at most {threshold['error_upper_bound']:.2%}"
        f" by {threshold['labels']:,.0f} labels"
    )
    if threshold["state"] == "closed":
        needed = threshold["pairs_needed"]
        return told + (", none is safe" if needed is None else f", some {needed:,} more to open")
    return told


def _name(namespace: Mapping[str, Any]) -> str:
    return f"{namespace['tenant']}/{namespace['namespace']}" if "tenant" in namespace else ""


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "size unknown"
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
