"""The library's database: one SQLite file with vectors (sqlite-vec) and words (FTS5).

`apsw` takes the place of the standard library's `sqlite3`, which on many systems cannot load
extensions. Vectors are kept twice: one bit a dimension, which is scanned, and float32, by which
the best of the scan are ranked.
"""

import re
from collections.abc import Iterable, Sequence

import apsw
import numpy as np
import sqlite_vec

DIMENSIONS = 384

SCHEMA = f"""
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, title TEXT NOT NULL, opened INTEGER NOT NULL DEFAULT 0);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents (id),
    text TEXT NOT NULL, embedding BLOB NOT NULL);
CREATE INDEX chunks_of_documents ON chunks (document);
CREATE VIRTUAL TABLE chunk_bits USING vec0 (embedding bit[{DIMENSIONS}], chunk_size=4096);
CREATE VIRTUAL TABLE chunk_words USING fts5 (
    text, content='chunks', content_rowid='id', tokenize='porter unicode61');
CREATE VIRTUAL TABLE title_words USING fts5 (
    title, content='documents', content_rowid='id', tokenize='porter unicode61');
CREATE VIRTUAL TABLE title_pieces USING fts5 (
    title, content='documents', content_rowid='id', tokenize='trigram');
CREATE VIRTUAL TABLE document_vectors USING vec0 (
    embedding float[{DIMENSIONS}] distance_metric=cosine);
CREATE VIRTUAL TABLE frequencies USING fts5vocab ('chunk_words', 'row');
CREATE TABLE common (stem TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_COMMON_SHARE = 0.05
"""A word in more of the chunks than this tells little, and ranking all of them takes long."""


def connect(path: str) -> apsw.Connection:
    """Open the database, and make it if it is new."""
    db = apsw.Connection(path)
    db.enable_load_extension(True)
    db.load_extension(sqlite_vec.loadable_path())
    db.set_busy_timeout(5_000)
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'documents'").get:
        db.execute("PRAGMA journal_mode = wal")
        with db:
            db.execute(SCHEMA)
    return db


def add_document(
    db: apsw.Connection, title: str, texts: Sequence[str], vectors: Sequence[np.ndarray]
) -> int:
    """Add a document, its chunks and their vectors (float32 [384], unit length)."""
    with db:
        document = db.execute("INSERT INTO documents (title) VALUES (?) RETURNING id", (title,)).get
        for table in ("title_words", "title_pieces"):
            db.execute(f"INSERT INTO {table} (rowid, title) VALUES (?, ?)", (document, title))
        mean = np.mean(vectors, axis=0, dtype=np.float32)
        db.execute(
            "INSERT INTO document_vectors (rowid, embedding) VALUES (?, ?)",
            (document, mean.tobytes()),
        )
        for text, vector in zip(texts, vectors, strict=True):
            chunk = db.execute(
                "INSERT INTO chunks (document, text, embedding) VALUES (?, ?, ?) RETURNING id",
                (document, text, vector.tobytes()),
            ).get
            db.execute("INSERT INTO chunk_words (rowid, text) VALUES (?, ?)", (chunk, text))
            db.execute(
                "INSERT INTO chunk_bits (rowid, embedding) VALUES (?, vec_quantize_binary(?))",
                (chunk, vector.tobytes()),
            )
    return document


def finish(db: apsw.Connection) -> None:
    """Merge the index of words, and note which words are common. Call it after loading."""
    with db:
        db.execute("INSERT INTO chunk_words (chunk_words) VALUES ('optimize')")
        db.execute("DELETE FROM common")
        db.execute(
            "INSERT INTO common SELECT term FROM frequencies"
            " WHERE doc > max(100, ? * (SELECT count(*) FROM chunks))",
            (_COMMON_SHARE,),
        )


def nearest_chunks(db: apsw.Connection, vector: bytes, limit: int) -> list[int]:
    """Return the chunks nearest to a vector: a scan of bits, whose best are ranked by cosine."""
    return _ids(
        db,
        """
        WITH scanned AS (
            SELECT rowid FROM chunk_bits WHERE embedding MATCH vec_quantize_binary(?1) AND k = ?2)
        SELECT chunks.id FROM scanned JOIN chunks ON chunks.id = scanned.rowid
        ORDER BY vec_distance_cosine(chunks.embedding, ?1) LIMIT ?3
        """,
        (vector, 4 * limit, limit),
    )


def nearest_documents(db: apsw.Connection, vector: bytes, limit: int) -> list[int]:
    """Return the documents whose chunks are nearest to a vector on average."""
    query = "SELECT rowid FROM document_vectors WHERE embedding MATCH ? AND k = ?"
    return _ids(db, query, (vector, limit))


def matching(db: apsw.Connection, table: str, words: Iterable[str], limit: int) -> list[int]:
    """Return the rows of a table of words that have any of these, the best by BM25 first."""
    query = " OR ".join(f'"{word}"' for word in words)
    if not query:
        return []
    sql = f"SELECT rowid FROM {table} WHERE {table} MATCH ? ORDER BY rank LIMIT ?"
    return _ids(db, sql, (query, limit))


def telling_words(db: apsw.Connection, text: str, limit: int) -> list[str]:
    """Return the words of a text that few chunks have, or none (titles may), the rarest first."""
    stem = db.fts5_tokenizer("porter", ["unicode61"])
    found: dict[str, int] = {}
    for word in dict.fromkeys(re.findall(r"\w+", text.lower())):
        stems = stem(word.encode(), apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False)
        for (one,) in stems:
            if db.execute("SELECT 1 FROM common WHERE stem = ?", (one,)).get:
                continue
            count = db.execute("SELECT doc FROM frequencies WHERE term = ?", (one,)).get
            found[word] = count or 0
    return sorted(found, key=found.__getitem__)[:limit]


def trigrams(text: str) -> list[str]:
    """Return the runs of three letters, most of which a misspelt word has in common."""
    words = [word for word in re.findall(r"\w+", text.lower()) if len(word) > 3]
    return list(dict.fromkeys(word[i : i + 3] for word in words for i in range(len(word) - 2)))


def _ids(db: apsw.Connection, sql: str, values: tuple) -> list[int]:
    return [row[0] for row in db.execute(sql, values)]
