"""The options of every command that sends traffic: where it goes, and what is kept of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from cacheproxy.errors import ConfigError
from cacheproxy.settings.sources import load_settings

from .results.report import as_html
from .results.result import Result
from .servers.served import Served
from .traffic.target import Target

EXIT_DIFFERENT = 1
EXIT_BROKEN = 3
EXIT_NOT_ANSWERED = 4

PATH = click.Path(path_type=Path)
_OPTIONS = [
    click.option("--url", help="server to send to, with or without /v1"),
    click.option("--serve", is_flag=True, help="start a cacheproxy for this run"),
    click.option("--home", type=PATH, help="where its models live"),
    click.option("--model", default="all-MiniLM-L6-v2", show_default=True),
    click.option("--api-key", envvar="LOADTEST_API_KEY", help="or in LOADTEST_API_KEY"),
    click.option("--float", "float_vectors", is_flag=True, help="ask for numbers, not base64"),
    click.option("--processes", default=1, show_default=True, help="number that send"),
    click.option("--timeout", "timeout_s", default=60.0, show_default=True, help="seconds"),
    click.option("--json", "json_path", type=PATH, help="write all figures to this file"),
    click.option("--report", "report_path", type=PATH, help="write a page with plots (.html)"),
]


@dataclass(frozen=True)
class Sending:
    """What these options say; the fields are named for them."""

    url: str | None
    serve: bool
    home: Path | None
    model: str
    api_key: str | None
    float_vectors: bool
    processes: int
    timeout_s: float
    json_path: Path | None
    report_path: Path | None

    @contextmanager
    def target(
        self, flags: tuple[str, ...], *, has_upstream: bool = False
    ) -> Iterator[tuple[Target, Served | None]]:
        """Yield where requests go, and the server that was started for them with these flags.

        Raises:
            ConfigError: not exactly one of --url and --serve was given.
        """
        if (self.url is None) != self.serve:
            raise ConfigError("give either --url or --serve")
        if self.url is not None:
            yield self._target(self.url), None
            return
        settings = load_settings({"home": str(self.home)} if self.home else {}, None)
        with Served(settings.home, self.model, flags, has_upstream=has_upstream) as served:
            yield self._target(served.url), served

    def _target(self, url: str) -> Target:
        return Target(url, self.model, self.api_key, self.float_vectors)

    def keep(self, result: Result) -> None:
        """Write the result to the files that were asked for."""
        if self.json_path is not None:
            self.json_path.write_bytes(msgspec.json.encode(result) + b"\n")
        if self.report_path is not None:
            self.report_path.write_text(as_html(result), encoding="utf-8")


def sends(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a command these options, which it gets as its argument `sending`."""

    def call(**given: Any) -> None:
        own = {name: given.pop(name) for name in list(given) if name not in _FIELDS}
        command(**own, sending=Sending(**given))

    call.__doc__, call.__name__ = command.__doc__, command.__name__
    # Options that stand below this decorator come with the command.
    call.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = call
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


_FIELDS = frozenset(Sending.__dataclass_fields__)


def exit_by(result: Result) -> None:
    """Exit with the code that says what is wrong with a run, if anything is."""
    if result.failures:
        sys.exit(EXIT_NOT_ANSWERED)
    if result.differences:
        sys.exit(EXIT_DIFFERENT)
    if not all(kept.is_kept for kept in result.promises):
        sys.exit(EXIT_BROKEN)
