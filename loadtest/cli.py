"""The command line of the load tester."""

from pathlib import Path
from typing import Any

import click
import msgspec

from cacheproxy.errors import CacheproxyError

from .bench.commands import bench
from .capacity.command import capacity
from .client.fleet import Assignment
from .errors import NotAnswered
from .export.command import export_command
from .limit.command import find_limit_command
from .peers.command import peers
from .results.compare import compare_results
from .results.comparison import as_comparison
from .results.result import read_result
from .results.summary import as_text
from .run import run
from .sending import EXIT_NOT_ANSWERED, PATH, Sending, exit_by, sends
from .traffic.recording import seconds_of
from .traffic.scenario import Phase, Scenario, load_scenario, scenario_names

EXIT_IMPOSSIBLE = 2

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Prints an expected error in one line, and exits with a code that says its kind."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CacheproxyError as error:
            click.echo(f"error: {error}", err=True)
            context.exit(EXIT_NOT_ANSWERED if isinstance(error, NotAnswered) else EXIT_IMPOSSIBLE)


@click.group(cls=_Commands, context_settings=_CONTEXT)
def main() -> None:
    """Send traffic to cacheproxy, or to any server with OpenAI's API, and report what happened.

    Exit codes: 1 clients and server count differently, 2 the run is not possible, 3 a promise of
    the scenario is broken, 4 requests were not answered with 2xx.
    """


@main.command("run")
@sends
@click.option(
    "--scenario", "name", default="smoke", show_default=True,
    help=f"{', '.join(scenario_names())}, or a TOML file",
)  # fmt: skip
@click.option("--texts", "files", multiple=True, type=PATH, help="JSONL or lines [made-up texts]")
@click.option("--trace", type=PATH, help="CSV with arrival_ms, instead of the schedules")
@click.option("--speed", default=1.0, show_default=True, help="of the trace")
@click.option("--seconds", type=float, help="length of every phase [the scenario's]")
@click.option("--scale", type=float, help="factor for the rates of open loops")
@click.option("--seed", type=int, help="of every random choice [the scenario's]")
@click.option("--smoke", is_flag=True, help="smallest sizes: shows only that everything works")
def run_command(
    name: str,
    files: tuple[Path, ...],
    trace: Path | None,
    speed: float,
    seconds: float | None,
    scale: float | None,
    seed: int | None,
    smoke: bool,
    sending: Sending,
) -> None:
    """Run a scenario."""
    scenario = load_scenario(name)
    if trace is not None:
        scenario = scenario.with_trace(str(trace), speed)
    if smoke:
        scenario = scenario.as_smoke_test()
    if seconds is not None:
        scenario = scenario.with_seconds(seconds)
    if scale is not None:
        scenario = scenario.with_rates(scale)
    if seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=seed)
    paths = tuple(str(path) for path in files)
    _send(Path(name).stem, scenario, {"files": paths}, sending)


@main.command()
@click.argument("recording", type=click.Path(exists=True, dir_okay=False))
@sends
@click.option("--speed", default=1.0, show_default=True)
def replay(recording: str, speed: float, sending: Sending) -> None:
    """Replay a recording of the proxy.

    RECORDING is a file that the proxy wrote to `record.path`.
    """
    phase = Phase(Path(recording).name, seconds_of(recording, speed), ())
    scenario = Scenario(f"{recording}, {speed:g} times as fast", (phase,))
    _send("replay", scenario, {"recording": recording, "speed": speed}, sending)


@main.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--report", "report_path", type=PATH, help="draw both on a page (.html)")
def compare(a: Path, b: Path, report_path: Path | None) -> None:
    """Compare two results.

    Shows the ratio of every figure, B to A, with its 95 % interval.
    """
    one, other = read_result(a), read_result(b)
    click.echo(compare_results(one, other))
    if report_path is not None:
        report_path.write_text(as_comparison(one, other), encoding="utf-8")


for _command in (find_limit_command, export_command, peers, bench, capacity):
    main.add_command(_command)


def _send(name: str, scenario: Scenario, what: dict[str, Any], sending: Sending) -> None:
    with sending.target(scenario.flags, has_upstream=scenario.upstream) as (target, served):
        assignment = Assignment(scenario, target, timeout_s=sending.timeout_s, **what)
        result = run(name, assignment, sending.processes, served)
    click.echo(as_text(result))
    sending.keep(result)
    exit_by(result)
