"""The command `export`."""

from pathlib import Path

import click

from cacheproxy.errors import ConfigError

from ..results.result import read_result
from ..sending import PATH
from .hdr_log import write_hdr_log
from .pushgateway import push_result


@click.command("export")
@click.argument("result", type=PATH)
@click.option("--hdr", "hdr_path", type=PATH, help="write HdrHistogram's interval log (.hlog)")
@click.option("--push", "push_url", help="push to this Prometheus Pushgateway")
def export_command(result: Path, hdr_path: Path | None, push_url: str | None) -> None:
    """Hand a result on to other tools.

    RESULT is a file that --json wrote.
    """
    if hdr_path is None and push_url is None:
        raise ConfigError("give --hdr, --push or both")
    found = read_result(result)
    if hdr_path is not None:
        try:
            write_hdr_log(found, hdr_path)
        except OSError as error:
            raise ConfigError(f"{hdr_path}: {error.strerror}") from None
    if push_url is not None:
        push_result(found, push_url)
