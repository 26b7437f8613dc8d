"""`cacheproxy openapi`: prints the OpenAPI document, without a server."""

import json

import click


@click.command()
@click.option("--admin", is_flag=True, help="describe the admin listener, not the public one")
def openapi(admin: bool) -> None:
    """Print the OpenAPI 3.1 document of all routes, as JSON.

    A running server serves the document of what it is configured for, at /openapi.json.
    """
    import cacheproxy.admin
    import cacheproxy.api
    from cacheproxy.admin.operations import ADMIN
    from cacheproxy.api.openapi import PUBLIC, declared, document

    about, package = (ADMIN, cacheproxy.admin) if admin else (PUBLIC, cacheproxy.api)
    click.echo(json.dumps(document(about, declared(package)), indent=2))
