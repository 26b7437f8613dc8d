"""`bench NAME`: every benchmark is a module of this folder or one in it, imported when it
is asked for."""

from importlib import import_module

import click

BENCHMARKS = (
    *("engine", "hits", "chat", "semantic", "thresholds", "judged", "metrics", "rerank"),
    *("tenants", "ingest", "scores", "device", "token-ids", "embedded", "eviction"),
)

_OFFLINE = ("device", "token-ids", "embedded", "eviction")


class _Benchmarks(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(BENCHMARKS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in BENCHMARKS:
            return None
        folder = ".offline" if name in _OFFLINE else ""
        module = import_module(f"{folder}.{name.replace('-', '_')}", __package__)
        command: click.Command = module.main
        return command


@click.group(cls=_Benchmarks)
def bench() -> None:
    """Run the benchmark of one part."""
