"""`cacheproxy eval`: what the semantic tier would do with a file of texts."""

from pathlib import Path
from typing import Any

import click

from cacheproxy.cli.failures import reported_failures
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.cli.installed import installed_model


@click.command("eval")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--then",
    type=click.Path(path_type=Path),
    multiple=True,
    help="file of the texts that traffic shifts to half-way",
)
@click.option(
    "--documents",
    type=click.Path(path_type=Path),
    multiple=True,
    help="show what a similarity means to a retriever of these documents",
)
@click.option(
    "--requests", type=int, help="number of requests to draw from the texts [replay as is]"
)
@click.option("--report", type=click.Path(path_type=Path), help="write a page with plots (.html)")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="write the figures to a file"
)
@click.option("--work", type=click.Path(path_type=Path), help="folder of the vectors, to resume")
@click.option("--seed", default=1, show_default=True, help="seed of every random choice")
@click.option(
    "--chat",
    "is_chat",
    is_flag=True,
    help="the texts are questions to a chat model; a group has one answer",
)
@click.option(
    "--judge",
    help="with --chat: the upstream words every answer anew, and a judge that rejects these shares"
    " of wrong and of right answers labels them, for example 0.95,0.02",
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help="with --judge: what the upstream answers, JSON lines with several wordings under answers",
)
@settings_flags()
def evaluate(
    files: tuple[Path, ...],
    then: tuple[Path, ...],
    documents: tuple[Path, ...],
    requests: int | None,
    report: Path | None,
    json_path: Path | None,
    work: Path | None,
    seed: int,
    is_chat: bool,
    judge: str | None,
    answers: Path | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Replay texts, a log or a list, to see what the semantic tier would do with them.

    Each line of FILES is a text, or a JSON object with a text. Objects may be labelled: `text` with
    its `cluster` or `label`, or pairs `a` and `b` with `label` 0 if the two differ.
    """
    settings = load(config, flags)
    from cacheproxy.evaluation.command import Wanted, run

    wanted = Wanted(
        *(files, then, documents, requests, report, json_path, work, seed),
        is_chat=is_chat,
        judge=judge,
        answers=answers,
    )
    with reported_failures():
        text = run(wanted, settings, installed_model(settings))
    click.echo(text)
