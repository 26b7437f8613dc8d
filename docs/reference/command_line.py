"""The command line reference: every command, from click."""

from collections.abc import Iterator
from typing import Any

import click
from tables import code, table

from cacheproxy.cli.loadtest import loadtest
from cacheproxy.cli.main import main
from cacheproxy.settings.settings import is_secret, setting_fields
from loadtest.cli import main as loadtest_commands

_INTRO = """\
# Command line

The option `--help` of any command prints the same. Commands that read the settings also take the
flags of the [settings](settings.md) that concern them, and `--config FILE`.

Exit codes: 0 success, 2 a mistake in the settings or the usage, 69 something needed is unavailable,
78 no usable model. The load tester has [its own](../load-testing.md#exit-codes).

"""


def page() -> str:
    """Return the page's Markdown."""
    parts = [_INTRO]
    for name, command in _commands("cacheproxy", main):
        parts.append(f"## `{name}`\n\n")
        parts.append(_described(name, command))
    return "".join(parts).rstrip() + "\n"


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if command is loadtest:  # it hands its arguments on to a command line of its own
        command = loadtest_commands
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, info_name=name)
    for inner in command.list_commands(context):
        found = command.get_command(context, inner)
        if found is not None:
            yield from _commands(f"{name} {inner}", found)


def _described(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text = f"```text\n{usage}\n```\n\n{_paragraphs(command.help or '')}\n\n"
    rows, sections = [], []
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        section = _section_of(option)
        if section is None:
            rows.append(_row(option, context))
        else:
            sections.append(section)
    if rows:
        text += table(("option", "default", "meaning"), rows)
    if sections:
        text += f"Settings that it takes as flags: {_names(sections)}.\n\n"
    return text


def _section_of(option: click.Option) -> str | None:
    """Return the section, or the name, of the setting that the option sets, if it does."""
    for path, field in setting_fields():
        if option.opts[0] == "--" + "-".join(path).replace("_", "-"):
            # A command may have a flag of the same name and another meaning.
            return path[0] if (option.help or "").startswith(field.description or "") else None
    return None


def _row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    names = ", ".join(code(flag) for flag in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names += f" {option.make_metavar(context)}"
    about: dict[str, Any] = option.to_info_dict()
    default = about["default"]
    is_shown = isinstance(default, str | int | float) and not isinstance(default, bool)
    shown = "required" if option.required else code(str(default)) if is_shown else ""
    return names, shown, option.help or ""


def _names(sections: list[str]) -> str:
    fields = [(path, field) for path, field in setting_fields() if not is_secret(field)]
    every = list(dict.fromkeys(path[0] for path, _ in fields))
    found = list(dict.fromkeys(sections))
    if len(found) == len(every):
        return "all [settings](settings.md)"
    is_section = {path[0] for path, _ in setting_fields() if len(path) > 1}
    return ", ".join(code(f"[{name}]" if name in is_section else name) for name in found)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))
