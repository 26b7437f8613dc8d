"""The command line reference: every command, from click."""

from collections.abc import Iterator
from typing import Any

import click
from tables import code, table

from cacheproxy.cli.main import main
from cacheproxy.settings.sections import setting_fields

_INTRO = """\
# Command line

`cacheproxy COMMAND --help` prints the same. Commands that read the settings also take the flags of
the [settings](settings.md) that concern them, and `--config FILE`.

Exit codes of all commands: 0 success, 2 a mistake in the settings or the usage, 69 something needed
is unavailable, 78 no usable model.

"""


def page() -> str:
    """Return the page's Markdown."""
    parts = [_INTRO]
    for name, command in _commands("cacheproxy", main):
        parts.append(f"## `{name}`\n\n")
        parts.append(_described(name, command))
    return "".join(parts).rstrip() + "\n"


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
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
    settings = {"--" + "-".join(path).replace("_", "-"): path for path, _ in setting_fields()}
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        setting = settings.get(option.opts[0])
        if setting is not None and not _is_redefined(option):
            sections.append(setting[0])
        else:
            rows.append(_row(option, context))
    if rows:
        text += table(("option", "default", "meaning"), rows)
    if sections:
        text += f"Settings that it takes as flags: {_names(sections)}.\n\n"
    return text


def _is_redefined(option: click.Option) -> bool:
    """Return whether a command has made this flag itself, with a meaning of its own."""
    return isinstance(option.type, click.Choice | click.Path)


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
    every = list(dict.fromkeys(path[0] for path, _ in setting_fields()))
    found = list(dict.fromkeys(sections))
    if len(found) == len(every):
        return "all [settings](settings.md)"
    is_section = {path[0] for path, _ in setting_fields() if len(path) > 1}
    return ", ".join(code(f"[{name}]" if name in is_section else name) for name in found)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))
