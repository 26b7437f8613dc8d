"""The flags of commands that read files of texts, and the embedder that these name."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cacheproxy.cli.installed import installed_model
from cacheproxy.errors import ConfigError
from cacheproxy.settings.settings import Settings

if TYPE_CHECKING:
    from cacheproxy.ingest.stream import Embedder, Limits

F = TypeVar("F", bound=Callable[..., Any])

_FORMS = ("jsonl", "csv", "tsv", "parquet", "lines")
_ROLES = ("query", "document")

_FLAGS = (
    click.option("--field", default="text", show_default=True, help="field or column of the text"),
    click.option("--id", help="field or column of the id; default: the row's number, from 0"),
    click.option("--format", type=click.Choice(_FORMS), help="form of the files [by their names]"),
    click.option("--role", type=click.Choice(_ROLES), help="what the texts are [no prefix]"),
    click.option("--url", help="a server with OpenAI's API; default: embed in this process"),
    click.option("--api-key-env", metavar="NAME", help="variable that holds the server's API key"),
    click.option("--namespace", help="the namespace at a cacheproxy"),
    click.option("--tag", "tags", multiple=True, help="a tag of the entries at a cacheproxy"),
    click.option("--ttl", type=int, help="time to live of the entries at a cacheproxy, seconds"),
    click.option(
        "--batch-tokens",
        type=click.IntRange(1),
        default=65_536,
        show_default=True,
        help="tokens under way at a time: what a kill may cost",
    ),
    click.option(
        "--in-flight",
        type=click.IntRange(1, 256),
        default=4,
        show_default=True,
        help="requests that a batch is sent in",
    ),
    click.option(
        "--give-up-s",
        type=click.FloatRange(0),
        default=300,
        show_default=True,
        help="how long the server may fail before the command ends with 69, seconds",
    ),
)


def corpus_flags(command: F) -> F:
    """Add the flags."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def limits_of(flags: dict[str, Any]) -> "Limits":
    """Return how much may be under way."""
    from cacheproxy.ingest.stream import Limits

    return Limits(batch_tokens=flags["batch_tokens"], in_flight=flags["in_flight"])


def embedder_of(settings: Settings, flags: dict[str, Any]) -> "Embedder":
    """Return the embedder, not yet entered.

    Raises:
        ConfigError: a flag cannot be used.
        ModelError: the model is unknown, or cannot be built.
    """
    if flags["url"] is None:
        given = [flag for flag in ("api_key_env", "namespace", "tags", "ttl") if flags[flag]]
        if given:
            names = ", ".join(f"--{flag.replace('_', '-').removesuffix('s')}" for flag in given)
            raise ConfigError(f"{names} need --url")
        from cacheproxy.ingest.local import LocalEmbedder

        return LocalEmbedder(installed_model(settings), role=flags["role"])
    from cacheproxy.ingest.remote import RemoteEmbedder

    named = flags["model"]
    return RemoteEmbedder(
        flags["url"],
        model=named[0] if named else None,
        api_key=_api_key(flags["api_key_env"]),
        headers=_headers(flags),
        role=flags["role"],
        give_up_s=flags["give_up_s"],
    )


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"--api-key-env: the variable {variable} is not set")
    return os.environ[variable]


def _headers(flags: dict[str, Any]) -> dict[str, str]:
    headers = {
        "X-Cacheproxy-Namespace": flags["namespace"],
        "X-Cacheproxy-Tags": ",".join(flags["tags"]),
        "X-Cacheproxy-TTL": "" if flags["ttl"] is None else str(flags["ttl"]),
    }
    return {name: value for name, value in headers.items() if value}
