"""Every command line of ours in the Markdown pages is one that the program accepts."""

import re
import shlex

import click
import pytest
from pages import PAGES, code_spans, name_of, sources

from cacheproxy.cli.loadtest import loadtest
from cacheproxy.cli.main import main
from loadtest.cli import main as loadtest_commands

OURS = re.compile(r"^(cacheproxy|python -m loadtest) (.+)$")


def command_lines(page) -> list[str]:
    shell = [line for source in sources(page, "sh") for line in _joined(source).splitlines()]
    parts = [part.strip() for line in shell for part in line.split("&&")]
    return [text for text in [*code_spans(page), *parts] if OURS.match(text)]


def _joined(source: str) -> str:
    return source.replace("\\\n", " ")


def check(line: str) -> None:
    """Raise if the program does not know the command, one of its options, or what it takes."""
    program, rest = OURS.match(line).groups()
    arguments = shlex.split(rest, comments=True)
    command = loadtest_commands if program.startswith("python") else main
    while isinstance(command, click.Group) and arguments[:1] not in (["--help"], ["--version"]):
        name = arguments.pop(0)
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"there is no command {name}")
        command = loadtest_commands if found is loadtest else found
        if isinstance(command, click.Group) and not arguments:
            return
    parser = command.make_parser(click.Context(command))
    parser.parse_args([argument for argument in arguments if argument != "…"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_command_lines_of_a_page_are_accepted(page):
    for line in command_lines(page):
        try:
            check(line)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize(
    "line",
    ["cacheproxy no-such", "cacheproxy serve --no-such", "python -m loadtest run --no-such"],
)
def test_a_command_that_does_not_exist_is_noticed(line):
    with pytest.raises(click.UsageError):
        check(line)
