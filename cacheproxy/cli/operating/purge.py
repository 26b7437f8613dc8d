"""`cacheproxy purge`: removes entries, from every server on the store."""

from pathlib import Path
from typing import Any

import click

from cacheproxy.admin.report import Target
from cacheproxy.cli.failures import reported_failures
from cacheproxy.cli.flags import OPERATOR_SETTINGS, load, settings_flags
from cacheproxy.keys import DEFAULT_TENANT, Namespace
from cacheproxy.modelkit.progress import counting


@click.command()
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="whose namespace it is")
@click.option("--namespace", required=True, help="the namespace's name")
@click.option("--key", help="purge the entry with this key, in hex")
@click.option("--text", help="purge the entry of this text under the model that is served")
@click.option("--query", help="with --text: purge this document's score for this query instead")
@click.option("--tag", help="purge the entries with this tag")
@click.option("--all", "everything", is_flag=True, help="purge the whole namespace")
@settings_flags(*OPERATOR_SETTINGS)
def purge(
    tenant: str,
    namespace: str,
    key: str | None,
    text: str | None,
    query: str | None,
    tag: str | None,
    everything: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Remove entries, from every server on the store; ends when all are gone."""
    settings = load(config, flags)
    from cacheproxy.admin import client

    target = Target(key=key, text=text, query=query, tag=tag, all=everything)
    with reported_failures(), counting("entries removed") as progress:
        removed = client.purge(settings, Namespace(tenant, namespace), target, progress)
    click.echo(f"entries removed: {removed}")
