"""Whose token ids are told rightly: each text sent alone as ids of three tokenizers.

"Right" means that the model reads exactly the ids that it would read of the text itself. A caller
sends one kind of ids, either all texts, so that the server learns what it sends, or one text only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import BadRequest
from cacheproxy.evaluation.traffic import read_texts
from cacheproxy.inference.openai_encodings import ENCODING_NAMES, load_encoding
from cacheproxy.inference.token_ids import TokenIds
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.building.corpus import read_corpus
from cacheproxy.modelkit.install import load_installed
from cacheproxy.modelkit.manifest import models_folder

from ..options import model_flags, settings_of, smoke_flag

_OPENAI_NAME = "text-embedding-3-small"
_SHORT = 60
"""Most characters of a short text."""


class _Told(NamedTuple):
    """How many texts were read rightly, refused and read as another text."""

    right: int
    refused: int
    wrong: int

    @classmethod
    def of(cls, verdicts: Sequence[bool | None]) -> "_Told":
        return cls(verdicts.count(True), verdicts.count(None), verdicts.count(False))

    def __str__(self) -> str:
        total = max(sum(self), 1)
        return f"{self.right / total:8.1%}{self.refused / total:9.1%}{self.wrong:7,}"


@click.command()
@smoke_flag(most=60)
@model_flags
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--most", type=int, help="texts that are read, evenly spread; by default all")
def main(model: str, home: Path | None, files: tuple[Path, ...], most: int | None) -> None:
    """Whose token ids: right, refused and wrong.

    Sends each text of FILES (JSON lines with text, or plain lines; by default the texts that ship
    for calibration) as token ids of the model itself, cl100k_base and o200k_base.
    """
    texts = list(dict.fromkeys(read_texts(files).texts if files else _shipped()))
    count = min(most or len(texts), len(texts))
    texts = [texts[i * len(texts) // count] for i in range(count)]
    installed = load_installed(model, settings_of(home).home)
    own = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    expected = own.encode(texts)
    short = sum(len(text) <= _SHORT for text in texts)
    click.echo(f"{len(texts):,} texts, {short:,} of them of at most {_SHORT} characters\n")
    header = f"{'':24}{'all texts':^24}   {'short texts':^24}"
    columns = f"{'right':>8}{'refused':>9}{'wrong':>7}"
    callers: tuple[tuple[str, str, Callable[[int], str]], ...] = (
        (f"under {_OPENAI_NAME}, one caller", _OPENAI_NAME, lambda _: "one"),
        (f"under {_OPENAI_NAME}, each text of a caller of its own", _OPENAI_NAME, str),
        (f"under {installed.name}", installed.name, str),
    )
    for title, name, caller_of in callers:
        click.echo(f"{title}\n{header}\n{'ids of':24}{columns}   {columns}")
        for maker, lists in _makers(texts, expected):
            token_ids = TokenIds(own, JobThread("token-ids"))
            verdicts = [
                _verdict(token_ids, own, ids, wanted, name, caller_of(number))
                for number, (ids, wanted) in enumerate(zip(lists, expected, strict=True))
            ]
            of_short = [
                verdict
                for verdict, text in zip(verdicts, texts, strict=True)
                if len(text) <= _SHORT
            ]
            click.echo(f"{maker:24}{_Told.of(verdicts)}   {_Told.of(of_short)}")
        click.echo()


def _shipped() -> tuple[str, ...]:
    corpus = read_corpus(models_folder())
    return (*corpus.held_out, *corpus.calibration)


def _makers(
    texts: Sequence[str], expected: Sequence[list[int]]
) -> list[tuple[str, list[list[int]]]]:
    """Return the ids of the texts by each tokenizer's name; the model's lack the specials."""
    return [
        ("the model, bare", [ids[1:-1] for ids in expected]),
        *(
            (name, load_encoding(name).encode_ordinary_batch(list(texts)))
            for name in ENCODING_NAMES
        ),
    ]


def _verdict(
    token_ids: TokenIds, own: Tokenizer, ids: list[int], wanted: list[int], name: str, caller: str
) -> bool | None:
    """Return whether the model reads what it reads of the text; None if the ids are refused."""
    try:
        vocabulary, (text,) = token_ids.tell([ids], name, caller)
    except BadRequest:
        return None
    return (own.accept(ids) if vocabulary == "own" else own.encode([text])[0]) == wanted
