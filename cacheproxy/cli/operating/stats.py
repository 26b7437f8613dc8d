"""`cacheproxy stats`: what the cache holds and how it does."""

import json
from pathlib import Path
from typing import Any

import click

from cacheproxy.admin.text import describe
from cacheproxy.cli.failures import reported_failures
from cacheproxy.cli.flags import OPERATOR_SETTINGS, load, settings_flags


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@settings_flags(*OPERATOR_SETTINGS, "semantic")
def stats(as_json: bool, config: Path | None, **flags: Any) -> None:
    """Print what the cache holds, and, where a server's admin listener answers, how it does."""
    settings = load(config, flags)
    from cacheproxy.admin.client import fetch_stats

    with reported_failures():
        figures = fetch_stats(settings)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for line in describe(figures):
        click.echo(line)
