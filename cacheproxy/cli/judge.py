"""`cacheproxy judge`: how a judge model does on pairs of one's own."""

from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.failures import EXIT_UNAVAILABLE, EXIT_USAGE, end
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.errors import ApiError, ConfigError


@click.command("judge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pairs", default=200, show_default=True, help="most pairs of each label")
@click.option("--seed", default=1, show_default=True, help="seed of the draw of pairs")
@settings_flags()
def measure_judge(
    files: tuple[Path, ...], pairs: int, seed: int, config: Path | None, **flags: Any
) -> None:
    """Try the judge model that chat.judge names on labelled pairs.

    FILES hold one JSON object a line: question, answer, and label (1 if the answer answers the
    question rightly and fully, else 0). The server does not need this: it measures its judge.
    """
    settings = load(config, flags)
    from cacheproxy.evaluation.judging import measure_judge as measure
    from cacheproxy.evaluation.judging import read_pairs

    try:
        found = measure(read_pairs(files), settings, pairs=pairs, seed=seed)
    except ConfigError as error:
        end(EXIT_USAGE, error)
    except ApiError as error:
        end(EXIT_UNAVAILABLE, error)
    click.echo(found.as_text())
