"""What an examination of a store finds, and how it is told."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
"""error: something that cacheproxy needs does not work; warning: it works, but not as it should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was checked, in a word or two.
        level: how it is.
        says: what was found.
        todo: what to do about it; empty if nothing.
        node: the server's address; empty if the check is about the store as a whole.
    """

    check: str
    level: Level
    says: str
    todo: str = ""
    node: str = ""

    @property
    def line(self) -> str:
        """The finding in one line."""
        where = f" ({self.node})" if self.node else ""
        todo = f"; {self.todo}" if self.todo else ""
        return f"{self.check}{where}: {self.says}{todo}"


def is_broken(findings: Iterable[Finding]) -> bool:
    """Return whether any of the findings is an error."""
    return any(finding.level == "error" for finding in findings)
