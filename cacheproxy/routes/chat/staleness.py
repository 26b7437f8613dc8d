"""How long completions may be served after their time: RFC 5861, by namespace.

`stale-while-revalidate`: a stale entry is served at once, and asked for anew behind the answer.
`stale-if-error`: it is served where the upstream fails, that is with what would be a 500, 502, 503
or 504. Entries are kept for the longer of the two. A pure core.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ERRORS = frozenset((500, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Staleness:
    """One namespace's rules, in seconds after an entry's time."""

    while_revalidate_s: float = 0.0
    if_error_s: float = 0.0

    @property
    def grace_s(self) -> float:
        """How long entries are kept after their time."""
        return max(self.while_revalidate_s, self.if_error_s)


class StalenessRules:
    """The rules of all namespaces."""

    def __init__(self, default: Staleness, by_namespace_id: Mapping[str, Staleness]) -> None:
        self.replace(default, by_namespace_id)

    def replace(self, default: Staleness, by_namespace_id: Mapping[str, Staleness]) -> None:
        """Go by these from now on."""
        self._default = default
        self._by_namespace_id = by_namespace_id

    def of(self, namespace_id: str) -> Staleness:
        """Return a namespace's rules."""
        return self._by_namespace_id.get(namespace_id, self._default)
