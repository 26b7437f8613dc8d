"""Loads documents: python load.py FILE... (Markdown, or JSON Lines with title and text).

Documents that are in the library already, by their title, are left out, so that loading that was
interrupted is taken up by the same command.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from database import add_document, connect, finish
from embedding import embed

WORDS = 30
"""In a chunk, at most."""

AT_ONCE = 32
"""Documents in a round; their chunks are embedded by four requests at a time."""


def read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the title and the text of each document in a file."""
    if path.suffix == ".jsonl":
        for line in path.open():
            row = json.loads(line)
            yield row.get("title") or row["id"], row["text"]
    else:
        text = path.read_text()
        first = next((line for line in text.splitlines() if line.startswith("# ")), path.stem)
        yield first.lstrip("# "), text


def split(text: str) -> list[str]:
    """Return the text's chunks."""
    words = text.split()
    return [" ".join(words[i : i + WORDS]) for i in range(0, len(words), WORDS)]


def load(path: str, documents: Iterator[tuple[str, str]]) -> int:
    """Add documents to the database at a path, and return how many chunks were added."""
    db = connect(path)
    known = {row[0] for row in db.execute("SELECT title FROM documents")}
    new = ((title, split(text)) for title, text in documents if title not in known and text.split())
    added = 0
    with ThreadPoolExecutor(4) as pool:
        while some := list(islice(new, AT_ONCE)):
            chunks = [chunk for _, texts in some for chunk in texts]
            requests = [chunks[i : i + 128] for i in range(0, len(chunks), 128)]
            vectors = iter([one for answer in pool.map(embed, requests) for one in answer])
            for title, texts in some:
                add_document(db, title, texts, list(islice(vectors, len(texts))))
            added += len(chunks)
            print(f"\r{added:,} chunks", end="", file=sys.stderr, flush=True)
    finish(db)
    print(file=sys.stderr)
    return added


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]]
    if not files:
        sys.exit(__doc__)
    load(os.environ.get("LIBRARY", "library.sqlite"), (one for file in files for one in read(file)))
