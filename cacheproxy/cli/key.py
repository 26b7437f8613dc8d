"""`cacheproxy key`: an API key for a tenant."""

import json
import secrets

import click

from cacheproxy.api.access.key_ring import hash_key


@click.command()
@click.argument("tenant")
def key(tenant: str) -> None:
    """Make an API key for TENANT: the key itself, and the lines for cacheproxy.toml."""
    api_key = "cp-" + secrets.token_urlsafe(32)
    click.echo(f"key (shown once, give it to the caller): {api_key}", err=True)
    click.echo(f"[api_keys]\n{json.dumps(tenant)} = [{json.dumps(hash_key(api_key))}]")
