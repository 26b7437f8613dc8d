"""`python -m loadtest`: the command line of the load tester."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from cacheproxy.errors import CacheproxyError, ConfigError
from cacheproxy.settings.sources import load_settings
from loadtest.compare import compare_results
from loadtest.fleet import Assignment
from loadtest.peers.table import PEERS, compare_peers
from loadtest.recording import seconds_of
from loadtest.report import as_html
from loadtest.result import Result, read_result
from loadtest.run import run
from loadtest.scenario import Phase, Scenario, load_scenario, scenario_names
from loadtest.served import Served
from loadtest.summary import as_text
from loadtest.target import Target

_DIFFERS = 1
_BROKEN = 3

_PATH = click.Path(path_type=Path)
_SENDING = [
    click.option("--url", help="server to ask, with or without /v1"),
    click.option("--serve", is_flag=True, help="start a cacheproxy for this run"),
    click.option("--home", type=_PATH, help="where its models live"),
    click.option("--model", default="all-MiniLM-L6-v2", show_default=True),
    click.option("--api-key", envvar="LOADTEST_API_KEY", help="also in LOADTEST_API_KEY"),
    click.option("--float", "float_vectors", is_flag=True, help="ask for numbers, not base64"),
    click.option("--processes", default=1, show_default=True, help="that send"),
    click.option("--timeout", "timeout_s", default=60.0, show_default=True, help="seconds"),
    click.option("--json", "json_path", type=_PATH, help="write every figure"),
    click.option("--report", "report_path", type=_PATH, help="write a page with plots"),
]


def _sending(command: Any) -> Any:
    for option in reversed(_SENDING):
        command = option(command)
    return command


@click.group()
def main() -> None:
    """Replay traffic against cacheproxy, or against any server that speaks OpenAI's API.

    Exit codes: 1 if clients and server count differently, 2 if a run is not possible, 3 if a
    promise of the scenario is broken.
    """


@main.command("run")
@_sending
@click.option(
    "--scenario", "name", default="smoke", show_default=True,
    help=f"{', '.join(scenario_names())}, or a TOML file",
)  # fmt: skip
@click.option("--texts", "files", multiple=True, type=_PATH, help="JSONL or lines; else made up")
@click.option("--trace", type=_PATH, help="CSV with arrival_ms, in place of the schedules")
@click.option("--speed", default=1.0, show_default=True, help="of the trace")
@click.option("--seconds", type=float, help="of every phase, in place of the scenario's")
@click.option("--seed", type=int, help="in place of the scenario's")
def run_command(
    name: str,
    files: tuple[Path, ...],
    trace: Path | None,
    speed: float,
    seconds: float | None,
    seed: int | None,
    **sending: Any,
) -> None:
    """Run a scenario."""
    with _told():
        scenario = load_scenario(name)
        if trace is not None:
            scenario = _with_trace(scenario, trace, speed)
        if seconds is not None:
            phases = [
                msgspec.structs.replace(
                    phase,
                    seconds=seconds,
                    settle_s=phase.settle_s * min(1.0, seconds / phase.seconds),
                )
                for phase in scenario.phases
            ]
            scenario = msgspec.structs.replace(scenario, phases=tuple(phases))
        if seed is not None:
            scenario = msgspec.structs.replace(scenario, seed=seed)
        paths = tuple(str(path) for path in files)
        _send(Path(name).stem, scenario, {"files": paths}, **sending)


@main.command()
@click.argument("recording", type=click.Path(exists=True, dir_okay=False))
@_sending
@click.option("--speed", default=1.0, show_default=True)
def replay(recording: str, speed: float, **sending: Any) -> None:
    """Send again what a proxy has recorded (`record.path`), hashes or texts."""
    with _told():
        phase = Phase(Path(recording).name, seconds_of(recording, speed), ())
        scenario = Scenario(f"{recording}, {speed:g} times as fast", (phase,))
        _send("replay", scenario, {"recording": recording, "speed": speed}, **sending)


@main.command()
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
def compare(a: Path, b: Path) -> None:
    """Show the ratios of two results' figures, B to A, with their 95 % spread."""
    with _told():
        click.echo(compare_results(read_result(a), read_result(b)))


@main.command()
@click.option("--work", type=_PATH, required=True, help="folder for their environments")
@click.option("--only", multiple=True, type=click.Choice(list(PEERS)), help="not all of them")
@click.option("--rounds", default=3, show_default=True)
@click.option("--home", type=_PATH, help="where cacheproxy's models live")
def peers(work: Path, only: tuple[str, ...], rounds: int, home: Path | None) -> None:
    """Run one load against other servers, installed on first use, and show a table."""
    with _told():
        settings = load_settings({"home": str(home)} if home else {}, None)
        click.echo(compare_peers(only or list(PEERS), work.resolve(), settings.home, rounds))


def _with_trace(scenario: Scenario, trace: Path, speed: float) -> Scenario:
    phases = [
        msgspec.structs.replace(
            phase,
            streams=tuple(
                stream
                if stream.clients
                else msgspec.structs.replace(
                    stream, per_s=None, per_capacity=None, steps=(), trace=str(trace), speed=speed
                )
                for stream in phase.streams
            ),
        )
        for phase in scenario.phases
    ]
    return msgspec.structs.replace(scenario, phases=tuple(phases))


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

    def go(url: str, served: Served | None) -> Result:
        target = Target(url, model, api_key, float_vectors)
        assignment = Assignment(scenario, target, timeout_s=timeout_s, **what)
        return run(name, assignment, processes, served)

    if url is not None:
        result = go(url, None)
    else:
        settings = load_settings({"home": str(home)} if home else {}, None)
        with Served(settings.home, model, scenario.flags) as served:
            result = go(served.url, served)
    click.echo(as_text(result))
    if json_path is not None:
        json_path.write_bytes(msgspec.json.encode(result) + b"\n")
    if report_path is not None:
        report_path.write_text(as_html(result), encoding="utf-8")
    if result.differences:
        sys.exit(_DIFFERS)
    if not all(kept.is_kept for kept in result.promises):
        sys.exit(_BROKEN)


class _told:  # noqa: N801
    """Tells errors of ours in one line, with exit code 2."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CacheproxyError | RuntimeError):
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


if __name__ == "__main__":
    main()
