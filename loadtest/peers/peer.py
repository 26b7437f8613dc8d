"""What another server needs to be measured: how it is installed, started and asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Place:
    """Where a peer runs.

    Attributes:
        python: of its virtual environment.
        folder: that is its own, for what it has to be configured with.
        model: folder of all-MiniLM-L6-v2 as sentence-transformers reads it.
        port: to listen on.
        upstream: URL of a cacheproxy, for who has no model of its own.
    """

    python: Path
    folder: Path
    model: Path
    port: int
    upstream: str


class Command(Protocol):
    """Returns the command that starts a peer, and writes what it reads."""

    def __call__(self, place: Place) -> list[str]: ...


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        name: as the table calls it.
        packages: that pip installs, step by step.
        command: that starts it.
        ready_path: answered with 200 when it can be asked.
        model: name under which it knows the model.
        phases: of the scenario `peers` that it can be compared in.
        environment: variables that it needs.
    """

    name: str
    packages: tuple[tuple[str, ...], ...]
    command: Command
    ready_path: str
    model: str
    phases: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
