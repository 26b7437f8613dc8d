"""The texts that a server was asked for most, from what it records (`telemetry.recorder`).

A store cannot say which texts it has: its keys are hashes. So these are the texts of a recording
with `record.texts`, counted by their hashes. Each file is read twice, so that only the texts that
are wanted are in memory.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import orjson

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.rows import Row
from cacheproxy.keys import Namespace
from cacheproxy.telemetry.recorder import namespace_hash

_RERANKING = ("query", "query_hash")


def most_asked(
    path: Path, namespace: Namespace, most: int, *, other_routes: Collection[str]
) -> list[Row]:
    """Return the texts that a namespace's embedding requests had most often, the first ones first.

    Args:
        path: of the recording; `PATH.1`, the part before it, is read, too.
        namespace: whose requests.
        most: how many texts at most.
        other_routes: those whose requests are not for embeddings.

    Raises:
        ConfigError: there is no such recording, or it has no texts.
    """
    wanted_by = namespace_hash(path, namespace.id)
    files = [file for file in (path.with_name(f"{path.name}.1"), path) if file.is_file()]
    if not files:
        raise ConfigError(f"{path}: there is no such recording; record.path names a server's own")
    counts = Counter[str]()
    has_texts = True
    for line in _lines(files, wanted_by, other_routes):
        counts.update(line["hashes"])
        has_texts = has_texts and "texts" in line
    if not has_texts:
        raise ConfigError(f"{path} has no texts: the server has to run with record.texts")
    wanted = {hashed for hashed, _ in counts.most_common(most)}
    texts = {
        hashed: text
        for line in _lines(files, wanted_by, other_routes)
        for hashed, text in zip(line["hashes"], line["texts"], strict=False)
        if hashed in wanted and isinstance(text, str)
    }
    ordered = sorted(texts, key=lambda hashed: -counts[hashed])
    return [Row(i, i, str(path), texts[hashed]) for i, hashed in enumerate(ordered)]


def _lines(
    files: Collection[Path], namespace: str, other_routes: Collection[str]
) -> Iterator[dict[str, Any]]:
    for file in files:
        try:
            with file.open("rb") as recorded:
                for raw in recorded:
                    try:
                        line = orjson.loads(raw)
                        is_ours = line["namespace"] == namespace
                        is_other = line["route"] in other_routes
                    except (ValueError, KeyError, TypeError):
                        continue  # torn, as by a kill
                    if is_ours and not is_other and not any(name in line for name in _RERANKING):
                        yield line
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or error}") from None
