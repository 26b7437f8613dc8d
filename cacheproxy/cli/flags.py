"""Settings as flags: every command takes those that concern it, and `load` reads them."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click

from cacheproxy.cli.failures import EXIT_USAGE, end
from cacheproxy.errors import ConfigError
from cacheproxy.settings.device import Device
from cacheproxy.settings.settings import Settings, is_secret, setting_fields
from cacheproxy.settings.sources import ENV_PREFIX, load_settings, unknown_variables
from cacheproxy.stores.url_parts import split_url

F = TypeVar("F", bound=Callable[..., Any])

OPERATOR_SETTINGS = ("home", "store", "model", "device", "api_keys", "admin")
"""The settings and sections that commands about a running server need."""


def settings_flags(*names: str) -> Callable[[F], F]:
    """Add a flag for every setting, or those of these names or sections, and --config."""

    def add(command: F) -> F:
        for path, field in reversed(list(setting_fields())):
            if (names and path[0] not in names) or is_secret(field):
                continue  # what is on a command line, every user of the machine can see
            flag = "--" + "-".join(path).replace("_", "-")
            shown = "" if field.default_factory or field.default is None else f" [{field.default}]"
            if get_origin(field.annotation) is tuple:
                option = click.option(
                    flag,
                    metavar="VALUE",
                    multiple=True,
                    default=None,
                    help=f"{field.description} [{', '.join(field.default)}]",
                )
            elif field.annotation is bool:
                option = click.option(flag, is_flag=True, default=None, help=field.description)
            else:
                option = click.option(flag, metavar="VALUE", help=f"{field.description}{shown}")
            command = option(command)
        config = click.option(
            "--config",
            type=click.Path(path_type=Path),
            envvar=f"{ENV_PREFIX}CONFIG",
            help="settings file [./cacheproxy.toml if it exists]",
        )
        return config(command)

    return add


def load(config: Path | None, flags: dict[str, Any]) -> Settings:
    for variable in unknown_variables(os.environ):
        click.echo(f"cacheproxy: {variable} names no setting and is ignored", err=True)
    if has_password(flags.get("store") or ""):
        end(
            EXIT_USAGE,
            ConfigError(
                "store: a password on the command line is visible to all users of the machine; "
                f"give {ENV_PREFIX}STORE, or the URL in the settings file"
            ),
        )
    try:
        return reader(config, flags)()
    except ConfigError as error:
        end(EXIT_USAGE, error)


def reader(config: Path | None, flags: dict[str, Any]) -> Callable[[], Settings]:
    """Return what reads the settings again: the file and the environment, below these flags."""
    nested: dict[str, Any] = {}
    for path, _ in setting_fields():
        value = flags.get("_".join(path))
        if value is not None and value != ():
            *sections, name = path
            place = nested.setdefault(sections[0], {}) if sections else nested
            place[name] = value
    return partial(load_settings, nested, config)


def has_password(url: str) -> bool:
    """Return whether a URL of a store holds a password."""
    parts = split_url(url)
    credentials = parts.authority.rpartition("@")[0]
    return ":" in credentials or "password=" in parts.query


home_flag = click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=lambda: Settings.model_fields["home"].get_default(call_default_factory=True),
    envvar=f"{ENV_PREFIX}HOME",
    help="where models live [the user's cache folder]",
)

device_flag = click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="cpu",
    show_default=True,
    help="what the model runs on",
)
