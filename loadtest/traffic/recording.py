"""Turns a recording of the proxy (`record.path`) into requests to send again.

A recording without texts holds hashes and lengths. Each hash becomes a made-up text of that length,
always the same one: what repeated in the recording repeats in the replay.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from cacheproxy.errors import ConfigError

from .plan import StreamPlan
from .scenario import Kind, Replayed
from .target import Target, user_message
from .texts import Drawn, text_of_length

_IDS = range(2_000, 20_000)
"""Token ids that are words in every vocabulary of BERT's kind."""

_FIRST, _LAST = 101, 102
"""Its [CLS] and [SEP], by which a server knows that ids are its model's own."""


Length = Annotated[int, Meta(ge=0, le=2**24)]


class Recorded(msgspec.Struct, frozen=True):
    """One line of a recording; see `cacheproxy.telemetry.recorder`."""

    at: Annotated[float, Meta(ge=0, lt=1e11)]
    route: str
    namespace: str
    hashes: list[str]
    characters: list[Length | None]
    tokens: list[Length | None]
    streamed: bool = False
    texts: list[str | list[int]] | None = None
    query_hash: str | None = None
    query_characters: int = 0
    query: str | None = None

    @property
    def replayed(self) -> Replayed:
        """The API by which it is sent again; each one has several paths."""
        if self.query_hash is not None:
            return "rerank"
        return "chat" if self.route == "chat" else "embeddings"

    def __post_init__(self) -> None:
        """Check what the types do not say; msgspec makes a decoding error of it."""
        lengths = {len(self.hashes), len(self.characters), len(self.tokens)}
        if self.texts is not None:
            lengths.add(len(self.texts))
        if not self.hashes or len(lengths) > 1:
            raise ValueError("there must be as many lengths and texts as hashes, and at least one")


def read_recording(path: Path) -> list[Recorded]:
    """Return the requests of a recording in the order of their times.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    decoder = msgspec.json.Decoder(Recorded)
    try:
        with path.open("rb") as lines:
            recorded = [decoder.decode(line) for line in lines]
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not recorded:
        raise ConfigError(f"{path}: the recording is empty")
    return sorted(recorded, key=lambda one: one.at)


def plan_recording(path: str, target: Target, speed: float) -> list[StreamPlan]:
    """Return a stream for each route and batch size of a recording, `speed` times as fast.

    Raises:
        ConfigError: the recording cannot be read.
    """
    recorded = read_recording(Path(path))
    plans: dict[tuple[str, bool, int], StreamPlan] = {}
    times: dict[tuple[str, bool, int], list[float]] = {}
    seen: set[tuple[str, str]] = set()
    for one in recorded:
        which = (one.route, one.streamed, len(one.hashes))
        if which not in plans:
            name = f"{one.route} x {len(one.hashes)}" + (" streamed" if one.streamed else "")
            plans[which] = StreamPlan(name, one.replayed, one.streamed, texts=len(one.hashes))
            times[which] = []
        texts = [Drawn(digest, _kind(one, digest, seen)) for digest in one.hashes]
        plans[which].add(_write(one, target), texts)
        times[which].append((one.at - recorded[0].at) / speed)
    for which, plan in plans.items():
        plan.times = np.array(times[which])
    return list(plans.values())


def seconds_of(path: str, speed: float) -> float:
    """Return for how many seconds a replay sends; raises `ConfigError`."""
    recorded = read_recording(Path(path))
    return max((recorded[-1].at - recorded[0].at) / speed, 1.0)


def _kind(one: Recorded, digest: str, seen: set[tuple[str, str]]) -> Kind:
    what = one.namespace, f"{one.query_hash or ''}{digest}"
    if what in seen:
        return "repeat"
    seen.add(what)
    return "unseen"


def _write(one: Recorded, target: Target) -> bytes:
    inputs = list(_made_up(one)) if one.texts is None else one.texts
    if one.query_hash is not None:
        made_up = text_of_length(one.query_hash, max(one.query_characters, 1))
        query = made_up if one.query is None else one.query
        return target.rerank(query, inputs, namespace=one.namespace)
    if one.route == "chat":
        given = str(inputs[0])
        messages = user_message(given) if one.texts is None else msgspec.Raw(given.encode())
        return target.chat(messages, streamed=one.streamed, namespace=one.namespace)
    return target.embeddings(inputs, namespace=one.namespace)


def _made_up(one: Recorded) -> Iterator[str | list[int]]:
    for digest, characters, tokens in zip(one.hashes, one.characters, one.tokens, strict=True):
        if characters is not None:
            yield text_of_length(digest, max(characters, 1))
        else:
            rng = random.Random(digest)  # noqa: S311
            yield [_FIRST, *rng.choices(_IDS, k=max((tokens or 0) - 2, 1)), _LAST]
