"""What a reload changes: the settings that run, against those that were read anew.

Which settings can change is said where they are declared (`section.Live`). The others stay what
they are until a restart, and are named. So are a few that can change only within limits:

- An upstream's table with `embeddings` or `rerank`: its URL, its models and its order name entries
  and routes, which are made at the start. Such a table is kept as a whole.
- The first upstream with chat models, and the last one: the routes for chat come and go with them.
- The first API key, and the last one: whether requests need a key is decided at the start.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from cacheproxy.settings.section import Section, is_live
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.tenants import TenantSettings

_HASH_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done about settings that were read anew.

    Attributes:
        settings: what is to run from now on.
        changed: the names of the settings that change.
        needs_restart: the names of those that stay what they are until a restart.
    """

    settings: Settings
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


def changes(running: Settings, read: Settings) -> Changes:
    """Return what a reload changes; whoever takes the result has to check it as a whole."""
    taken: dict[str, Any] = {}
    changed: list[str] = []
    kept: list[str] = []
    for name, field in Settings.model_fields.items():
        old, new = getattr(running, name), getattr(read, name)
        if isinstance(old, Section):
            live, fixed = _differing(old, new)
            taken[name] = old.model_copy(update={one: getattr(new, one) for one in live})
            changed += (f"{name}.{one}" for one in live)
            kept += (f"{name}.{one}" for one in fixed)
        elif name == "upstreams":
            taken[name] = _upstreams(old, new, kept)
        elif name == "tenants":
            taken[name] = _tenants(old, new, kept)
        elif is_live(field):
            taken[name] = new
        elif old != new:
            kept.append(name)
    _keep_what_routes_need(running, taken, kept)
    for name in taken:
        if not isinstance(taken[name], Section):
            changed += _named(name, getattr(running, name), taken[name])
    return Changes(running.model_copy(update=taken), tuple(changed), tuple(kept))


def settings_hash(settings: Settings) -> str:
    """Return a hash by which servers can be compared; secrets and URLs are no part of it."""
    told = settings.model_dump(mode="python")
    plain = repr([(name, _without_secrets(value)) for name, value in sorted(told.items())])
    return hashlib.sha256(plain.encode()).hexdigest()[:_HASH_DIGITS]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_secrets(one) for name, one in value.items()}
    if isinstance(value, SecretStr) or (isinstance(value, str) and "://" in value):
        return "hidden"
    return value


def _differing(old: Section, new: Section) -> tuple[list[str], list[str]]:
    """Return the names of the fields that differ: those that can change, and the others."""
    live: list[str] = []
    fixed: list[str] = []
    for name, field in type(old).model_fields.items():
        if getattr(old, name) != getattr(new, name):
            (live if is_live(field) else fixed).append(name)
    return live, fixed


def _named(name: str, old: Any, new: Any) -> Iterator[str]:
    """Yield the names of what differs: the entries of a table, or the setting."""
    if not isinstance(old, Mapping):
        if old != new:
            yield name
        return
    differing = [one for one in {**old, **new} if old.get(one) != new.get(one)]
    yield from (f"{name}.{one}" for one in differing)
    if not differing and list(old) != list(new):
        yield name  # the order counts


def _tenants(
    old: Mapping[str, TenantSettings], new: Mapping[str, TenantSettings], kept: list[str]
) -> dict[str, TenantSettings]:
    nothing = TenantSettings()
    taken: dict[str, TenantSettings] = {}
    for name in {**new, **old}:
        was, now = old.get(name, nothing), new.get(name, nothing)
        live, fixed = _differing(was, now)
        kept += (f"tenants.{name}.{one}" for one in fixed)
        if name in new or fixed:
            taken[name] = was.model_copy(update={one: getattr(now, one) for one in live})
    return taken


def _upstreams(
    old: Mapping[str, UpstreamSettings], new: Mapping[str, UpstreamSettings], kept: list[str]
) -> dict[str, UpstreamSettings]:
    taken: dict[str, UpstreamSettings] = {}
    for name, now in new.items():
        was = old.get(name)
        if _made_at_start(was) == _made_at_start(now):
            taken[name] = now
            continue
        kept.append(f"upstreams.{name}")
        if was is not None:
            taken[name] = was
    for name, was in old.items():
        if name not in new and _made_at_start(was):
            kept.append(f"upstreams.{name}")
            taken[name] = was
    before = [name for name, one in old.items() if _made_at_start(one)]
    after = [name for name, one in taken.items() if _made_at_start(one)]
    if before != after:
        kept.append("upstreams")
        return {name: taken[name] for name in {**old, **taken} if name in taken}
    return taken


def _made_at_start(upstream: UpstreamSettings | None) -> tuple[object, ...]:
    """Return what of an upstream's table routes and fingerprints are made of; empty if nothing."""
    if upstream is None or not (upstream.embeddings or upstream.rerank):
        return ()
    one = upstream
    return one.base_url, tuple(one.embeddings.items()), one.rerank, one.before_local


def _keep_what_routes_need(running: Settings, taken: dict[str, Any], kept: list[str]) -> None:
    after = running.model_copy(update=taken)
    if _have_chat(running) != _have_chat(after):
        kept += (
            name for name in ("upstream", "upstreams") if getattr(running, name) != taken[name]
        )
        taken |= {"upstream": running.upstream, "upstreams": running.upstreams}
    if running.needs_key != after.needs_key:
        kept.append("api_keys")
        taken["api_keys"] = running.api_keys


def _have_chat(settings: Settings) -> bool:
    return any(one.has_chat for one in settings.all_upstreams.values())
