"""How another server is installed, started and called, so that it can be measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Place:
    """Where a peer runs.

    Attributes:
        python: the Python of its virtual environment.
        folder: for its configuration.
        model: folder of all-MiniLM-L6-v2 as sentence-transformers reads it.
        port: to listen on.
        upstream: URL of a cacheproxy, for a peer without a model of its own.
    """

    python: Path
    folder: Path
    model: Path
    port: int
    upstream: str


class Command(Protocol):
    """Returns the command that starts a peer, after writing its configuration."""

    def __call__(self, place: Place) -> list[str]: ...


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        name: shown in the table.
        packages: that pip installs, step by step.
        command: starts it.
        ready_path: is answered with 200 when the server is ready.
        model: its name for the model.
        phases: of the scenario `peers` in which it can be compared.
        environment: variables that it needs.
    """

    name: str
    packages: tuple[tuple[str, ...], ...]
    command: Command
    ready_path: str
    model: str
    phases: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
