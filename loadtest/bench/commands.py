"""`bench NAME`: every benchmark is a module of this folder or one in it, imported when it
is asked for."""

from importlib import import_module

import click

BENCHMARKS = (
    *("speed", "engine", "hits", "chat", "semantic", "thresholds", "judged", "metrics", "rerank"),
    *("tenants", "ingest", "scores", "device", "token-ids", "embedded", "eviction"),
)

_FOLDERS = {
    **dict.fromkeys(("device", "token-ids", "embedded", "eviction"), ".offline"),
    **dict.fromkeys(("thresholds", "judged", "scores"), ".replay"),
}


class _Benchmarks(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(BENCHMARKS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in BENCHMARKS:
            return None
        module = import_module(f"{_FOLDERS.get(name, '')}.{name.replace('-', '_')}", __package__)
        command: click.Command = module.main
        return command


@click.group(cls=_Benchmarks)
def bench() -> None:
    """Run the benchmark of one part."""
