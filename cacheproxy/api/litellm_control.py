"""LiteLLM's body field `cache`: what its users ask of the cache, beside our headers.

`{"ttl": 300, "s-maxage": 600, "no-cache": true, "no-store": true, "namespace": "docs"}`. Where the
headers and the field speak of the same, the stricter one holds; other members are left alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cacheproxy.api.callers import named_in
from cacheproxy.errors import BadRequest
from cacheproxy.keys import Namespace
from cacheproxy.routes.exchange import Control
from cacheproxy.settings.sections import MOST_TTL_S


def merge_control(control: Control, cache: Mapping[str, Any]) -> Control:
    """Return what headers and body ask for together.

    Raises:
        BadRequest: a member has no usable value.
    """
    if not cache:
        return control
    max_ages_s = (control.max_age_s, _seconds(cache, "s-maxage", least=0))
    given = [age_s for age_s in max_ages_s if age_s is not None]
    ttl_s = _seconds(cache, "ttl", least=1)
    return replace(
        control,
        no_cache=control.no_cache or cache.get("no-cache") is True,
        no_store=control.no_store or cache.get("no-store") is True,
        max_age_s=min(given) if given else None,
        ttl_s=control.ttl_s if ttl_s is None else min(ttl_s, control.ttl_s or ttl_s),
    )


def merge_namespace(namespace: Namespace, cache: Mapping[str, Any]) -> Namespace:
    """Return the namespace that the body names, inside the caller's tenant.

    Raises:
        BadRequest: its name is not usable.
    """
    name = cache.get("namespace")
    if name is None:
        return namespace
    if not isinstance(name, str):
        raise BadRequest("'cache.namespace' must be a string", param="cache")
    return named_in(namespace.tenant, name, "'cache.namespace'")


def _seconds(cache: Mapping[str, Any], name: str, *, least: float) -> float | None:
    value = cache.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= MOST_TTL_S:
        raise BadRequest(f"'cache.{name}' must be a number of seconds", param="cache")
    return float(value)
