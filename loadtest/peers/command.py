"""`peers`: a table of other servers under the same load."""

from pathlib import Path

import click

from ..bench.options import PATH, settings_of, smoke_flag
from .table import PEERS, compare_peers


@click.command()
@smoke_flag(exposed=True, rounds=1)
@click.option("--work", type=PATH, required=True, help="folder for their environments")
@click.option("--only", multiple=True, type=click.Choice(list(PEERS)), help="[all]")
@click.option("--rounds", default=3, show_default=True)
@click.option("--home", type=PATH, help="where cacheproxy's models live")
def peers(work: Path, only: tuple[str, ...], rounds: int, home: Path | None, smoke: bool) -> None:
    """Compare cacheproxy with other servers.

    They are installed on first use, and each gets the same load, alone. The output is a table.
    """
    names = only or tuple(PEERS)
    click.echo(compare_peers(names, work.resolve(), settings_of(home).home, rounds, smoke))
