"""`cacheproxy embed`: vectors of texts, computed in this process."""

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from cacheproxy.cli.failures import reported_failures
from cacheproxy.cli.flags import load, settings_flags
from cacheproxy.cli.installed import installed_model


@click.command()
@click.argument("texts", nargs=-1)
@settings_flags()
def embed(texts: tuple[str, ...], config: Path | None, **flags: Any) -> None:
    """Print the vector of each TEXT, or of each line of standard input, as a line of JSON."""
    settings = load(config, flags)
    from cacheproxy.inference.session import OnnxEncoder
    from cacheproxy.inference.tokenizer import Tokenizer

    with reported_failures():
        installed = installed_model(settings)
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    encoder = OnnxEncoder(installed.graph, device=installed.device)
    for text in texts or (line.rstrip("\n") for line in sys.stdin):
        (ids,) = tokenizer.encode([text])
        (vector,) = encoder.encode(np.array([ids], np.int64))
        click.echo(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
