"""`cacheproxy doctor`: whether a store can do all that the server needs of it."""

import asyncio
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.cli.failures import EXIT_BROKEN, reported_failures
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.settings.settings import Settings

if TYPE_CHECKING:
    from cacheproxy.stores.doctor.findings import Finding


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@settings_flags("home", "store", "cache", "semantic", "encryption")
def doctor(as_json: bool, config: Path | None, **flags: Any) -> None:
    """Examine the store, and say what to do where something is not as it should be.

    Entries of its own are written, found, purged and left to expire, in a namespace of their own.
    The exit code is 1 if anything is broken; warnings leave it at 0.
    """
    settings = load(config, flags)
    # Log lines are kept off standard error: the findings say the same, and what to do about it.
    logging.getLogger("cacheproxy").addHandler(logging.NullHandler())
    from cacheproxy.stores.doctor.findings import is_broken

    with reported_failures():
        findings = asyncio.run(_examine(settings, is_told=not as_json))
    if as_json:
        told = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"is_broken": is_broken(findings), "findings": told}, indent=1))
    if is_broken(findings):
        sys.exit(EXIT_BROKEN)


async def _examine(settings: Settings, *, is_told: bool) -> list["Finding"]:
    from cacheproxy.stores.doctor.examination import examine

    findings = []
    async for finding in examine(settings):
        findings.append(finding)
        if is_told:
            click.echo(f"{finding.level:<8}{finding.line}")
    return findings
