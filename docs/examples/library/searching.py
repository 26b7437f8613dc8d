"""Hybrid search: rankings by several signals, joined by reciprocal rank fusion.

Of texts that are compared by words, by vectors and by what readers open, the scores do not
compare; their ranks do (Cormack, Clarke and Büttcher 2009).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import apsw
from database import matching, nearest_chunks, nearest_documents, telling_words, trigrams

K = 60
"""Of reciprocal rank fusion: how much the first ranks weigh less than their due."""

DEPTH = 50
"""How many each signal ranks."""


def fuse(rankings: Iterable[Sequence[set[int]]]) -> dict[int, float]:
    """Return each chunk's sum of 1 / (K + rank), ranks from 1; a place may have several chunks."""
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, place in enumerate(ranking, start=1):
            for chunk in place:
                scores[chunk] += 1 / (K + rank)
    return scores


def search(db: apsw.Connection, query: str, vector: bytes | None, limit: int) -> list[dict]:
    """Return the best chunks by six signals, or by four where there is no vector."""
    words = telling_words(db, query, limit=12)
    chunks = {"text": matching(db, "chunk_words", words, DEPTH)}
    documents = {
        "title": matching(db, "title_words", words, DEPTH),
        "spelling": matching(db, "title_pieces", trigrams(query), DEPTH),
    }
    if vector is not None:
        chunks["meaning"] = nearest_chunks(db, vector, DEPTH)
        documents["whole"] = nearest_documents(db, vector, DEPTH)
    candidates = {chunk for ranking in chunks.values() for chunk in ranking}
    found = [document for ranking in documents.values() for document in ranking]
    documents["opened"] = _most_opened(db, candidates, found)
    return _results(db, chunks, documents, limit)


def related(db: apsw.Connection, chunk: int, limit: int) -> list[dict]:
    """Return what is like a chunk by three signals, without its own document's; infers nothing.

    Raises:
        LookupError: there is no such chunk.
    """
    row = db.execute("SELECT document, text, embedding FROM chunks WHERE id = ?", (chunk,)).get
    if row is None:
        raise LookupError(chunk)
    document, text, vector = row
    chunks = {
        "meaning": nearest_chunks(db, vector, DEPTH),
        "text": matching(db, "chunk_words", telling_words(db, text, limit=8), DEPTH),
    }
    documents = {"whole": nearest_documents(db, vector, DEPTH)}
    return _results(db, chunks, documents, limit, without=document)


def _most_opened(db: apsw.Connection, chunks: Iterable[int], documents: Iterable[int]) -> list[int]:
    """Return those documents of what was found that readers have opened, the favourite first."""
    found = {*documents, *_documents_of(db, chunks).values()}
    sql = f"SELECT id FROM documents WHERE id IN ({_list(found)}) AND opened ORDER BY opened DESC"
    return [row[0] for row in db.execute(sql)]


def _results(
    db: apsw.Connection,
    by_chunk: Mapping[str, Sequence[int]],
    by_document: Mapping[str, Sequence[int]],
    limit: int,
    without: int | None = None,
) -> list[dict]:
    """Fuse the signals. A document's place is that of its chunks found, or of its first one."""
    chunks = {chunk for ranking in by_chunk.values() for chunk in ranking}
    of_document: dict[int, set[int]] = defaultdict(set)
    for chunk, document in _documents_of(db, chunks).items():
        of_document[document].add(chunk)
    ranked = {document for ranking in by_document.values() for document in ranking}
    for document, first in _first_chunks(db, ranked - of_document.keys()).items():
        of_document[document].add(first)

    places = {name: [{chunk} for chunk in ranking] for name, ranking in by_chunk.items()}
    for name, ranking in by_document.items():
        places[name] = [of_document[document] for document in ranking]
    if without is not None:
        places = {
            name: [one - of_document[without] for one in all_] for name, all_ in places.items()
        }

    scores = fuse(places.values())
    best = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:limit]
    rows = {
        row[0]: row
        for row in db.execute(
            "SELECT chunks.id, documents.id, title, text FROM chunks"
            f" JOIN documents ON documents.id = document WHERE chunks.id IN ({_list(best)})"
        )
    }
    return [
        {
            "chunk": chunk,
            "document": rows[chunk][1],
            "title": rows[chunk][2],
            "text": rows[chunk][3],
            "score": round(scores[chunk], 6),
            "signals": [name for name, all_ in places.items() if any(chunk in one for one in all_)],
        }
        for chunk in best
    ]


def _documents_of(db: apsw.Connection, chunks: Iterable[int]) -> dict[int, int]:
    return dict(db.execute(f"SELECT id, document FROM chunks WHERE id IN ({_list(chunks)})"))


def _first_chunks(db: apsw.Connection, documents: Iterable[int]) -> dict[int, int]:
    return dict(
        db.execute(
            f"SELECT document, min(id) FROM chunks WHERE document IN ({_list(documents)})"
            " GROUP BY document"
        )
    )


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)
