"""LiteLLM's body field `cache`, with which its users control the cache instead of headers.

If headers and the field set the same control, the stricter value applies.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cacheproxy.api.callers import NamespaceName, named_in
from cacheproxy.api.control import Age, Ttl
from cacheproxy.keys import Namespace
from cacheproxy.routes.exchange import Control
from cacheproxy.validation import convert


class CacheField(
    msgspec.Struct, rename={"no_cache": "no-cache", "no_store": "no-store", "max_age": "s-maxage"}
):
    """LiteLLM's cache controls. The field is removed before a request goes to the upstream."""

    ttl: Annotated[
        Ttl | None, Meta(description="Like `X-Cacheproxy-TTL`; the shorter one applies.")
    ] = None
    max_age: Annotated[
        Age | None, Meta(description="Like `Cache-Control: max-age`; the shorter one applies.")
    ] = None
    no_cache: Annotated[bool | None, Meta(description="Like `Cache-Control: no-cache`.")] = None
    no_store: Annotated[bool | None, Meta(description="Like `Cache-Control: no-store`.")] = None
    namespace: Annotated[
        NamespaceName | None,
        Meta(description="Like `X-Cacheproxy-Namespace`, which it overrides."),
    ] = None


def read_cache_field(given: Mapping[str, Any]) -> CacheField:
    """Return the field; unknown members are ignored.

    Raises:
        BadRequest: a member has an invalid value.
    """
    field: CacheField = convert(given, CacheField, "'cache'", param="cache")
    return field


def merge_control(control: Control, cache: CacheField) -> Control:
    """Return the combined controls of headers and body."""
    ages_s = [age_s for age_s in (control.max_age_s, cache.max_age) if age_s is not None]
    ttls_s = [ttl_s for ttl_s in (control.ttl_s, cache.ttl) if ttl_s is not None]
    return replace(
        control,
        no_cache=control.no_cache or cache.no_cache is True,
        no_store=control.no_store or cache.no_store is True,
        max_age_s=min(ages_s, default=None),
        ttl_s=min(ttls_s, default=None),
    )


def merge_namespace(namespace: Namespace, cache: CacheField) -> Namespace:
    """Return the namespace that the body names within the caller's tenant."""
    if cache.namespace is None:
        return namespace
    return named_in(namespace.tenant, cache.namespace, "'cache.namespace'")
