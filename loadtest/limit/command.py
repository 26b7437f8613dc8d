"""The command `find-limit`."""

import sys
from pathlib import Path

import click
import msgspec

from cacheproxy.errors import ConfigError

from ..client.fleet import Assignment
from ..results.result import Result, Trial
from ..results.summary import describe_limit, describe_sender, warnings_of
from ..sending import EXIT_DIFFERENT, PATH, Sending, sends
from ..traffic.scenario import load_scenario, scenario_names
from .find import find_limit, search_scenario
from .search import Search

_AT_MOST = {"p99_ms": 100.0, "refused_share": 0.001, "failed_share": 0.001}
_AT_LEAST = {"answered_share": 0.95}
_SMOKE_TRIALS = 3
_SMOKE_S = 1.0


def _say(figures: dict[str, float]) -> str:
    return ", ".join(f"{figure}={value:g}" for figure, value in figures.items())


@click.command("find-limit")
@sends
@click.option(
    "--scenario", "name", default="rag-steady", show_default=True,
    help=f"whose traffic is sent: {', '.join(scenario_names())}, or a TOML file",
)  # fmt: skip
@click.option("--phase", "phase_name", help="of the scenario [the first]")
@click.option("--texts", "files", multiple=True, type=PATH, help="JSONL or lines [made-up texts]")
@click.option(
    "--at-most", multiple=True, metavar="FIGURE=VALUE", help=f"a promise; besides {_say(_AT_MOST)}"
)
@click.option(
    "--at-least", multiple=True, metavar="FIGURE=VALUE", help=f"the same; besides {_say(_AT_LEAST)}"
)
@click.option("--start", default=50.0, show_default=True, help="requests a second of the 1st trial")
@click.option("--step", default=1.5, show_default=True, help="factor from trial to trial")
@click.option("--most", default=20_000.0, show_default=True, help="requests a second, at most")
@click.option("--seconds", default=8.0, show_default=True, help="length of a trial")
@click.option("--precision", default=0.1, show_default=True, help="width of the interval, relative")
@click.option("--trials", default=40, show_default=True, help="number of them, at most")
@click.option("--seed", type=int, help="of every random choice [the scenario's]")
@click.option("--smoke", is_flag=True, help="three trials of a second: shows only that it works")
def find_limit_command(
    name: str,
    phase_name: str | None,
    files: tuple[Path, ...],
    at_most: tuple[str, ...],
    at_least: tuple[str, ...],
    start: float,
    step: float,
    most: float,
    seconds: float,
    precision: float,
    trials: int,
    seed: int | None,
    smoke: bool,
    sending: Sending,
) -> None:
    """Find the rate at which a server breaks a promise.

    Sends the traffic of one phase of a scenario at rising rates until a promise breaks, then
    repeats trials around the limit until its 95 % interval is narrow.
    """
    if step <= 1 or not 0 < start <= most:
        raise ConfigError("--step must be more than 1, and --start more than 0 and at most --most")
    scenario = load_scenario(name)
    if seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=seed)
    promises = {**_AT_MOST, **_read(at_most)}, {**_AT_LEAST, **_read(at_least)}
    if smoke:  # without promises, because the figures mean nothing
        scenario, promises = scenario.as_smoke_test(), ({}, {})
        seconds, trials = _SMOKE_S, _SMOKE_TRIALS
    search = Search(
        *promises,
        start_per_s=start,
        step=step,
        most_per_s=most,
        precision=precision,
        most_trials=trials,
    )
    scenario = search_scenario(scenario, phase_name, seconds, trials)
    with sending.target(scenario.flags) as (target, served):
        assignment = Assignment(
            scenario,
            target,
            files=tuple(str(path) for path in files),
            timeout_s=sending.timeout_s,
        )
        result = find_limit(
            f"limit of {Path(name).stem}", assignment, sending.processes, served, search, _show
        )
    sending.keep(result)
    _summarize(result)
    if result.differences:
        sys.exit(EXIT_DIFFERENT)


def _read(given: tuple[str, ...]) -> dict[str, float]:
    figures = {}
    for text in given:
        figure, _, value = text.partition("=")
        try:
            figures[figure] = float(value)
        except ValueError:
            raise ConfigError(f"{text}: give a figure and its limit, as p99_ms=50") from None
    return figures


def _show(trial: Trial) -> None:
    click.echo(f"{trial.phase:28}{'breaks ' + ', '.join(trial.broken) if trial.broken else 'kept'}")


def _summarize(result: Result) -> None:
    click.echo(describe_sender(result))
    click.echo(describe_limit(result))
    for warning in warnings_of(result):
        click.echo(f"WARNING {warning}")
    for difference in result.differences:
        click.echo(f"DIFFERENCE {difference}")
