"""Bulk ingestion: files of texts in, files of vectors out, by a server or in this process.

`ingest` embeds files and survives kill -9; `embeddings` yields the vectors of any texts. Both take
a `RemoteEmbedder` (any server with OpenAI's API) or a `LocalEmbedder` (a model in this process).
"""

from cacheproxy.ingest.ingest import Progress, embeddings, ingest
from cacheproxy.ingest.local import LocalEmbedder
from cacheproxy.ingest.readers import Columns
from cacheproxy.ingest.remote import RemoteEmbedder
from cacheproxy.ingest.rows import Embedded, IngestStopped, Row
from cacheproxy.ingest.stream import Limits

__all__ = [
    "Columns",
    "Embedded",
    "IngestStopped",
    "Limits",
    "LocalEmbedder",
    "Progress",
    "RemoteEmbedder",
    "Row",
    "embeddings",
    "ingest",
]
