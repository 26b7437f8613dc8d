"""Answers a question from Markdown, with LlamaIndex: python llama_index_chat.py QUESTION FILE...

Embeddings, reranking and the answer come through one cacheproxy. Its Cache-Status headers are
counted at the end.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

URL = os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:8080")
EMBEDDING_MODEL = os.environ.get("MODEL", "all-MiniLM-L6-v2")
CHAT_MODEL = os.environ.get("CHAT_MODEL", "gpt-4o-mini")

outcomes: Counter[str] = Counter()


def count(response: httpx.Response) -> None:
    if status := response.headers.get("cache-status"):
        outcomes["hits" if "; hit" in status else "misses"] += 1


http = httpx.Client(timeout=60, event_hooks={"response": [count]})


class Reranker(BaseNodePostprocessor):
    """Keeps the best passages by the proxy's reranker."""

    model: str

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        texts = [node.node.get_content(MetadataMode.NONE) for node in nodes]
        query = query_bundle.query_str if query_bundle else ""
        body = {"model": self.model, "query": query, "documents": texts, "top_n": 4}
        answer = http.post(f"{URL}/v1/rerank", json=body).raise_for_status().json()
        return [nodes[one["index"]] for one in answer["results"]]


def rerankers() -> list[Reranker]:
    """Return the proxy's reranker, if it has one."""
    models = http.get(f"{URL}/v1/models").raise_for_status().json()["data"]
    names = [model["id"] for model in models if model.get("kind") == "rerank"]
    return [Reranker(model=name) for name in names[:1]]


def answer(question: str, files: Sequence[Path]) -> str:
    pages = [Document(text=file.read_text(), metadata={"source": file.name}) for file in files]
    embeddings = OpenAIEmbedding(
        model_name=EMBEDDING_MODEL,
        api_base=f"{URL}/v1",
        api_key="unused",
        http_client=http,
        embed_batch_size=64,
    )
    splitter = SentenceSplitter(chunk_size=200, chunk_overlap=0)
    index = VectorStoreIndex.from_documents(
        pages, embed_model=embeddings, transformations=[splitter]
    )
    chat = OpenAI(
        model=CHAT_MODEL, api_base=f"{URL}/v1", api_key="unused", http_client=http, temperature=0
    )
    ranking = rerankers()
    engine = index.as_query_engine(
        llm=chat, similarity_top_k=12 if ranking else 4, node_postprocessors=ranking
    )
    return str(engine.query(question))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(answer(sys.argv[1], [Path(name) for name in sys.argv[2:]]))
    print(f"cache: {outcomes['hits']} hits, {outcomes['misses']} misses")
