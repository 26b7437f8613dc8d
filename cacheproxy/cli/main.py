"""The command line: one file for each command, put together here."""

import click

import cacheproxy
from cacheproxy.cli.embed import embed
from cacheproxy.cli.evaluate import evaluate
from cacheproxy.cli.judge import measure_judge
from cacheproxy.cli.key import key
from cacheproxy.cli.loadtest import loadtest
from cacheproxy.cli.model import model
from cacheproxy.cli.openapi import openapi
from cacheproxy.cli.serve import serve
from cacheproxy.cli.store.doctor import doctor
from cacheproxy.cli.store.exporting import export
from cacheproxy.cli.store.importing import import_
from cacheproxy.cli.store.purge import purge
from cacheproxy.cli.store.stats import stats
from cacheproxy.cli.warm import warm


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(cacheproxy.__version__, package_name="cacheproxy")
def main() -> None:
    """A semantic caching proxy in front of inference."""


for command in (
    *(serve, model, embed, warm, evaluate, measure_judge, stats, purge),
    *(doctor, export, import_, key, openapi, loadtest),
):
    main.add_command(command)
