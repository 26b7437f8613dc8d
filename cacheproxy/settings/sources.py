"""How settings are read: defaults that work, then `cacheproxy.toml`, `CACHEPROXY_*`, and flags.

A setting has one name everywhere: `[batch] window_ms` is CACHEPROXY_BATCH_WINDOW_MS and
--batch-window-ms. Every mistake is told in a line of its own that names the setting.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cacheproxy.errors import ConfigError
from cacheproxy.keys import DEFAULT_TENANT
from cacheproxy.settings.places import line_of
from cacheproxy.settings.settings import TABLES, Settings, is_loopback, is_secret, setting_fields

CONFIG_FILE = Path("cacheproxy.toml")
ENV_PREFIX = "CACHEPROXY_"

_SECRETS = {"store", "upstream"} | {
    ".".join(path) for path, field in setting_fields() if is_secret(field)
}
"""Settings whose values no message repeats."""

_TEST_PREFIX = ENV_PREFIX + "TEST_"


class _GivenSettings(Settings, BaseSettings):
    """The settings as flags, the environment and the file give them together."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="_", env_nested_max_split=1
    )
    config_file: ClassVar[Path | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment, before the file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.config_file)
        return init_settings, env_settings, toml


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return the names that look like settings of ours and are none: mostly spelling mistakes."""
    paths = [*(path for path, _ in setting_fields()), *((table,) for table in TABLES), ("config",)]
    known = {ENV_PREFIX + "_".join(path).upper() for path in paths}
    return sorted(
        name
        for name in environment
        if name.startswith(ENV_PREFIX) and name not in known and not name.startswith(_TEST_PREFIX)
    )


def load_settings(flags: Mapping[str, Any], config_file: Path | None) -> Settings:
    """Return the settings; `flags` is nested as the settings are, and holds only what was given.

    Raises:
        ConfigError: one line per mistake, each naming the setting.
    """
    if config_file is None and CONFIG_FILE.exists():
        config_file = CONFIG_FILE
    if config_file is not None and not config_file.is_file():
        raise ConfigError(f"{config_file}: there is no such file")
    chosen = type("_GivenSettings", (_GivenSettings,), {"config_file": config_file})
    try:
        settings: Settings = chosen(**flags)
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, flags, config_file))) from None
    except ValueError as error:
        raise ConfigError(f"{config_file or 'settings'}: {error}") from None
    check(settings)
    # Of a class that other modules can find, so that the settings can be handed to a worker.
    return Settings.model_construct(settings.model_fields_set, **dict(settings))


def check(settings: Settings) -> None:
    """Check what several settings have to agree on; raises `ConfigError`."""
    _check_exposure(settings)
    _check_tenants(settings)
    _check_workers(settings)


def _lines(
    error: ValidationError, flags: Mapping[str, Any], config_file: Path | None
) -> Iterator[str]:
    text = "" if config_file is None else config_file.read_text(errors="replace")
    for mistake in error.errors():
        path = [str(part) for part in mistake["loc"]]
        name = ".".join(path)
        # A URL may hold a password.
        is_hidden = name in _SECRETS or name.endswith((".api_key", ".base_url"))
        is_shown = not is_hidden and not isinstance(mistake["input"], dict)
        given = f" (given: {mistake['input']!r})" if is_shown else ""
        # What a flag or a variable has said does not stand in the file.
        is_elsewhere = path[0] in flags or ENV_PREFIX + "_".join(path[:2]).upper() in os.environ
        line = None if is_elsewhere else line_of(text, path)
        place = "" if line is None else f", line {line} of {config_file}"
        yield f"{name}: {mistake['msg']}{given}{place}"


def _check_exposure(settings: Settings) -> None:
    admin = settings.admin
    if admin.port is not None and admin.token is None and not is_loopback(admin.host):
        raise ConfigError(
            f"admin.host: listening on {admin.host} without admin.token lets anybody purge"
        )
    if settings.needs_key or settings.allow_anonymous or is_loopback(settings.host):
        return
    raise ConfigError(
        f"host: listening on {settings.host} without API keys lets anybody in; "
        "configure api_keys, or say --allow-anonymous"
    )


def _check_tenants(settings: Settings) -> None:
    if settings.api_keys_file is not None:
        return  # tenants come and go with it
    known = settings.api_keys or {DEFAULT_TENANT}
    tables: dict[str, Iterable[str]] = {
        "namespace_ttl_s": settings.namespace_ttl_s,
        "namespace_stale_s": settings.namespace_stale_s,
        "namespace_cache_tools": settings.namespace_cache_tools,
        "tenants": settings.tenants,
    }
    unknown = [
        f"{name}.{tenant}: there is no such tenant"
        for name, table in tables.items()
        for tenant in table
        if tenant not in known
    ]
    if unknown:
        raise ConfigError("\n".join(unknown))


def _check_workers(settings: Settings) -> None:
    if settings.workers > 1 and settings.is_in_memory:
        raise ConfigError(
            f"workers: with {settings.store}, each of {settings.workers} would have a cache of its "
            "own; the store has to be a file or Redis"
        )
