"""`cacheproxy judge`: how well a judge model tells answers apart."""

from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.failures import EXIT_UNAVAILABLE, EXIT_USAGE, end
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.errors import ApiError, ConfigError


@click.command("judge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pairs", default=200, show_default=True, help="number of pairs of each kind")
@click.option("--seed", default=1, show_default=True, help="seed of every random choice")
@settings_flags()
def measure_judge(
    files: tuple[Path, ...], pairs: int, seed: int, config: Path | None, **flags: Any
) -> None:
    """Measure how many different answers the judge model tells apart.

    Each line of FILES is a JSON object with a pair of texts: `a`, `b`, and `label` 0 if the two
    differ or 1 if they say the same.
    """
    flags["chat_judge_sensitivity"] = flags["chat_judge_sensitivity"] or 1  # as it is to be found
    settings = load(config, flags)
    from cacheproxy.evaluation.judging import measure_judge as measure
    from cacheproxy.evaluation.traffic import read_texts

    try:
        found = measure(read_texts(files), settings, pairs=pairs, seed=seed)
    except ConfigError as error:
        end(EXIT_USAGE, error)
    except ApiError as error:
        end(EXIT_UNAVAILABLE, error)
    click.echo(found.as_text())
