"""The command line of the load tester."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from cacheproxy.errors import CacheproxyError, ConfigError
from cacheproxy.settings.sources import load_settings

from .bench.commands import bench
from .client.fleet import Assignment
from .errors import NotAnswered
from .peers.command import peers
from .results.compare import compare_results
from .results.report import as_html
from .results.result import Result, read_result
from .results.summary import as_text
from .run import run
from .servers.served import Served
from .traffic.recording import seconds_of
from .traffic.scenario import Phase, Scenario, load_scenario, scenario_names
from .traffic.target import Target

EXIT_DIFFERENT = 1
EXIT_IMPOSSIBLE = 2
EXIT_BROKEN = 3
EXIT_NOT_ANSWERED = 4

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_PATH = click.Path(path_type=Path)
_SENDING = [
    click.option("--url", help="server to send to, with or without /v1"),
    click.option("--serve", is_flag=True, help="start a cacheproxy for this run"),
    click.option("--home", type=_PATH, help="where its models live"),
    click.option("--model", default="all-MiniLM-L6-v2", show_default=True),
    click.option("--api-key", envvar="LOADTEST_API_KEY", help="or in LOADTEST_API_KEY"),
    click.option("--float", "float_vectors", is_flag=True, help="ask for numbers, not base64"),
    click.option("--processes", default=1, show_default=True, help="number that send"),
    click.option("--timeout", "timeout_s", default=60.0, show_default=True, help="seconds"),
    click.option("--json", "json_path", type=_PATH, help="write all figures to this file"),
    click.option("--report", "report_path", type=_PATH, help="write a page with plots (.html)"),
]


class _Commands(click.Group):
    """Prints an expected error in one line, and exits with a code that says its kind."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CacheproxyError as error:
            click.echo(f"error: {error}", err=True)
            context.exit(EXIT_NOT_ANSWERED if isinstance(error, NotAnswered) else EXIT_IMPOSSIBLE)


def _sending(command: Any) -> Any:
    for option in reversed(_SENDING):
        command = option(command)
    return command


@click.group(cls=_Commands, context_settings=_CONTEXT)
def main() -> None:
    """Send traffic to cacheproxy, or to any server with OpenAI's API, and report what happened.

    Exit codes: 1 clients and server count differently, 2 the run is not possible, 3 a promise of
    the scenario is broken, 4 requests were not answered with 2xx.
    """


@main.command("run")
@_sending
@click.option(
    "--scenario", "name", default="smoke", show_default=True,
    help=f"{', '.join(scenario_names())}, or a TOML file",
)  # fmt: skip
@click.option("--texts", "files", multiple=True, type=_PATH, help="JSONL or lines [made-up texts]")
@click.option("--trace", type=_PATH, help="CSV with arrival_ms, instead of the schedules")
@click.option("--speed", default=1.0, show_default=True, help="of the trace")
@click.option("--seconds", type=float, help="length of every phase [the scenario's]")
@click.option("--seed", type=int, help="of every random choice [the scenario's]")
@click.option("--smoke", is_flag=True, help="smallest sizes: shows only that everything works")
def run_command(
    name: str,
    files: tuple[Path, ...],
    trace: Path | None,
    speed: float,
    seconds: float | None,
    seed: int | None,
    smoke: bool,
    **sending: Any,
) -> None:
    """Run a scenario."""
    scenario = load_scenario(name)
    if trace is not None:
        scenario = scenario.with_trace(str(trace), speed)
    if smoke:
        scenario = scenario.as_smoke_test()
    if seconds is not None:
        scenario = scenario.with_seconds(seconds)
    if seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=seed)
    paths = tuple(str(path) for path in files)
    _send(Path(name).stem, scenario, {"files": paths}, **sending)


@main.command()
@click.argument("recording", type=click.Path(exists=True, dir_okay=False))
@_sending
@click.option("--speed", default=1.0, show_default=True)
def replay(recording: str, speed: float, **sending: Any) -> None:
    """Replay a recording of the proxy.

    RECORDING is a file that the proxy wrote to `record.path`.
    """
    phase = Phase(Path(recording).name, seconds_of(recording, speed), ())
    scenario = Scenario(f"{recording}, {speed:g} times as fast", (phase,))
    _send("replay", scenario, {"recording": recording, "speed": speed}, **sending)


@main.command()
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
def compare(a: Path, b: Path) -> None:
    """Compare two results.

    Shows the ratio of every figure, B to A, with its 95 % interval.
    """
    click.echo(compare_results(read_result(a), read_result(b)))


for _command in (peers, bench):
    main.add_command(_command)


def _send(
    name: str,
    scenario: Scenario,
    what: dict[str, Any],
    *,
    url: str | None,
    serve: bool,
    home: Path | None,
    model: str,
    api_key: str | None,
    float_vectors: bool,
    processes: int,
    timeout_s: float,
    json_path: Path | None,
    report_path: Path | None,
) -> None:
    if (url is None) != serve:
        raise ConfigError("give either --url or --serve")

    def send_to(url: str, served: Served | None) -> Result:
        target = Target(url, model, api_key, float_vectors)
        assignment = Assignment(scenario, target, timeout_s=timeout_s, **what)
        return run(name, assignment, processes, served)

    if url is not None:
        result = send_to(url, None)
    else:
        settings = load_settings({"home": str(home)} if home else {}, None)
        with Served(settings.home, model, scenario.flags) as served:
            result = send_to(served.url, served)
    click.echo(as_text(result))
    if json_path is not None:
        json_path.write_bytes(msgspec.json.encode(result) + b"\n")
    if report_path is not None:
        report_path.write_text(as_html(result), encoding="utf-8")
    if result.failures:
        sys.exit(EXIT_NOT_ANSWERED)
    if result.differences:
        sys.exit(EXIT_DIFFERENT)
    if not all(kept.is_kept for kept in result.promises):
        sys.exit(EXIT_BROKEN)
