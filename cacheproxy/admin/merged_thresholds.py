"""The state of the semantic tier as all workers know it.

Workers share their evidence through the store, but one that has had no request of a namespace knows
nothing of it. Of each namespace the state is told by the worker with the most labels, and its hits
and what they saved are the sums of all workers.
"""

from collections.abc import Iterable, Sequence
from typing import Any


def merge_thresholds(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return as one what one or more workers told, in the form of `report.Thresholds`."""
    merged = {**told[0], "namespaces": _merge([one["namespaces"] for one in told], "spared_s")}
    chats = [one["chat"] for one in told if "chat" in one]
    if chats:
        names = dict.fromkeys(name for chat in chats for name in chat["models"])
        models = {name: [c["models"][name] for c in chats if name in c["models"]] for name in names}
        merged["chat"] = {
            **chats[0],
            "models": {
                # What judging has cost is each worker's own account; the busiest one's is told.
                name: {
                    **max(ones, key=lambda one: sum(one["own_requests"].values())),
                    "namespaces": _merge([one["namespaces"] for one in ones], "saved_s"),
                }
                for name, ones in models.items()
            },
        }
    return merged


def _merge(lists: Iterable[list[dict[str, Any]]], saved: str) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for namespace in (namespace for one in lists for namespace in one):
        found.setdefault((namespace.get("model", ""), namespace["id"]), []).append(namespace)
    merged = []
    for ones in found.values():
        best: dict[str, Any] = max(ones, key=_labels)
        hits = sum(one["hits"] for one in ones)
        merged.append({**best, "hits": hits, saved: round(sum(one[saved] for one in ones), 3)})
    return merged


def _labels(namespace: dict[str, Any]) -> float:
    if "labels" in namespace:
        return float(namespace["labels"])
    return max((float(one["labels"]) for one in namespace["thresholds"]), default=0.0)
