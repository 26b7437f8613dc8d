"""Flags that benchmarks share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cacheproxy.settings.settings import Settings
from cacheproxy.settings.sources import load_settings

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def model_flags(command: F) -> F:
    """Add --model and --home."""
    command = click.option("--home", type=PATH, help="where models live")(command)
    return click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")(command)


def smoke_flag(*, exposed: bool = False, **sizes: Any) -> Callable[[F], F]:
    """Add --smoke, which replaces the defaults of other flags with these sizes.

    The run then shows only that everything works and every request is answered. A flag that is
    given explicitly wins. `exposed` makes it an argument of the command, too.
    """

    def choose(context: click.Context, _: click.Parameter, is_smoke: bool) -> bool:
        if is_smoke:
            context.default_map = {**(context.default_map or {}), **sizes}
        return is_smoke

    return click.option(
        "--smoke",
        is_flag=True,
        is_eager=True,
        expose_value=exposed,
        callback=choose,
        help="smallest sizes: shows only that everything works",
    )


def settings_of(home: Path | None, **given: Any) -> Settings:
    """Return the settings with a home folder, or its default, and others that are given."""
    return load_settings({**given, **({"home": str(home)} if home else {})}, None)
