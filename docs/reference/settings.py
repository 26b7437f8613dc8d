"""The settings reference: every section and table, from the pydantic models."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from tables import code, table

from cacheproxy.settings.section import is_live
from cacheproxy.settings.sections import (
    CanarySettings,
    PriceSettings,
    StaleSettings,
    UpstreamSettings,
)
from cacheproxy.settings.settings import TABLES, Settings, is_secret, setting_fields
from cacheproxy.settings.sources import ENV_PREFIX
from cacheproxy.settings.tenants import ApiKey, TenantSettings

_INTRO = f"""\
# Settings

Every setting has one name in three spellings. `[batch] window_ms` in `cacheproxy.toml` is
`{ENV_PREFIX}BATCH_WINDOW_MS` in the environment and `--batch-window-ms` on the command line. A flag
overrides a variable, a variable overrides the file, and the file overrides the default.
[Configuration](../configuration.md) explains the file and gives examples. Where "reload" says yes,
a [reload](../operations.md#change-settings-without-a-restart) changes the setting while the server
runs.

`cacheproxy serve` takes all of these settings. Other commands take those that concern them; see
the [command line](command-line.md).

"""

_COMPUTED = {
    "home": "the user's cache folder, such as `~/.cache/cacheproxy`",
    "batch.threads": "the worker's share of the cores",
}
"""Defaults that depend on the machine."""

_UNITS = {
    "_s": "seconds",
    "_ms": "milliseconds",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_entries": "entries",
    "characters": "characters",
}
"""Units by the end of a setting's name; the first that fits counts."""

_USER_TABLES: dict[str, tuple[str, type[BaseModel] | None, str]] = {
    "api_keys": (
        "[api_keys]",
        ApiKey,
        "Each key is a tenant, each value a list of hashes as `cacheproxy key` prints them, or of "
        "tables of these settings.",
    ),
    "tenants": ("[tenants.TENANT]", TenantSettings, "One table for each tenant."),
    "model_aliases": ("[model_aliases]", None, "Each key is a further name, each value a model."),
    "namespace_ttl_s": (
        "[namespace_ttl_s.TENANT]",
        None,
        "Each key is a namespace, each value a time to live in seconds. It replaces `cache.ttl_s` "
        "there.",
    ),
    "namespace_cache_tools": (
        "[namespace_cache_tools.TENANT]",
        None,
        'Each key is a namespace, each value `"on"` or `"off"`, in place of `chat.cache_tools`.',
    ),
    "namespace_stale_s": (
        "[namespace_stale_s.TENANT]",
        StaleSettings,
        "Each key is a namespace, each value a table of these settings.",
    ),
    "upstreams": ("[upstreams.NAME]", UpstreamSettings, "One table for each upstream server."),
    "canary": (
        '[canary."MODEL"]',
        CanarySettings,
        "One table for each model that has one; [Rollouts](../rollouts.md) explains it.",
    ),
    "prices": ('[prices."MODEL"]', PriceSettings, "One table for each chat model."),
}


def page() -> str:
    """Return the page's Markdown."""
    parts = [_INTRO, "## At the top level\n\n", _section_table("")]
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts += [f"## `[{name}]`\n\n", f"{section.__doc__}\n\n", _section_table(name)]
    parts.append(
        "## Tables for the file only\n\n"
        "The keys of these tables are your own names, so they have no flags.\n\n"
    )
    for name in TABLES:
        heading, model, about = _USER_TABLES[name]
        field = Settings.model_fields[name]
        description = field.description or ""
        if model is None:
            about += " A reload changes it." if is_live(field) else " It needs a restart."
        parts.append(f"### `{heading}`\n\n{_sentence(description)} {about}\n\n")
        if model is not None:
            parts.append(_rows_of_table(model))
    return "".join(parts).rstrip() + "\n"


def _section_table(section: str) -> str:
    rows = []
    for path, field in setting_fields():
        if section != ("" if len(path) == 1 else path[0]):
            continue
        variable = ENV_PREFIX + "_".join(path).upper()
        flag = "--" + "-".join(path).replace("_", "-")
        names = f"{code(path[-1])}<br>{code(variable)}"
        if not is_secret(field):
            names += f"<br>{code(flag)}"
        rows.append((names, *_about(".".join(path), field)))
    return table(("setting, variable, flag", "default", "allowed", "reload", "what it does"), rows)


def _rows_of_table(model: type[BaseModel]) -> str:
    rows = [(code(name), *_about(name, field)) for name, field in model.model_fields.items()]
    return table(("setting", "default", "allowed", "reload", "what it does"), rows)


def _about(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    """Return default with its unit, allowed values, whether a reload changes it, description."""
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    description = (field.description or "").removesuffix(f", {unit}") if unit else field.description
    default = _default(name, field)
    if unit and default.startswith("`"):
        default += f" {unit}"
    return default, _allowed(field), "yes" if is_live(field) else "", description or ""


def _default(name: str, field: FieldInfo) -> str:
    if name in _COMPUTED:
        return _COMPUTED[name]
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "not set"
    if isinstance(default, dict | tuple):
        return ", ".join(map(code, default)) or "none"
    return code(str(default).lower() if isinstance(default, bool) else str(default))


def _allowed(field: FieldInfo) -> str:
    kinds = _plain_types(field.annotation)
    words = [code(str(word)) for kind in kinds for word in _words(kind)]
    if words:
        return ", ".join(words)
    if bounds := _bounds(field):
        return bounds
    if bool in kinds:
        return "`true`, `false`"
    return "secret text" if SecretStr in kinds else ""


def _bounds(field: FieldInfo) -> str:
    found = {
        name: f"{bound:,g}" if bound < 1e6 else f"{int(bound):,}"
        for rule in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (bound := getattr(rule, name, None)) is not None
    }
    if found.keys() == {"ge", "le"}:
        return f"{found['ge']} to {found['le']}"
    words = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
    return ", ".join(words[name].format(bound) for name, bound in found.items())


def _plain_types(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [annotation]
    inner = [arm for arm in get_args(annotation) if arm is not type(None)]
    return [kind for arm in inner for kind in _plain_types(arm)] if inner else [annotation]


def _words(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
