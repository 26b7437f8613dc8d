"""Answers a question from Markdown, with LangChain: python langchain_chat.py QUESTION FILE...

Embeddings, reranking and the answer come through one cacheproxy. Its Cache-Status headers are
counted at the end.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_text_splitters import MarkdownTextSplitter

URL = os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:8080")
EMBEDDING_MODEL = os.environ.get("MODEL", "all-MiniLM-L6-v2")
CHAT_MODEL = os.environ.get("CHAT_MODEL", "gpt-4o-mini")

PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Answer from these passages alone, and say so if they do not tell:\n\n{passages}",
        ),
        ("user", "{question}"),
    ]
)

outcomes: Counter[str] = Counter()


def count(response: httpx.Response) -> None:
    if status := response.headers.get("cache-status"):
        outcomes["hits" if "; hit" in status else "misses"] += 1


http = httpx.Client(timeout=60, event_hooks={"response": [count]})


class Reranker(BaseDocumentCompressor):
    """Keeps the best passages by the proxy's reranker."""

    model: str

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks=None
    ) -> list[Document]:
        texts = [document.page_content for document in documents]
        body = {"model": self.model, "query": query, "documents": texts, "top_n": 4}
        answer = http.post(f"{URL}/v1/rerank", json=body).raise_for_status().json()
        return [documents[one["index"]] for one in answer["results"]]


def reranker() -> Reranker | None:
    """Return the proxy's reranker, if it has one."""
    models = http.get(f"{URL}/v1/models").raise_for_status().json()["data"]
    names = [model["id"] for model in models if model.get("kind") == "rerank"]
    return Reranker(model=names[0]) if names else None


def answer(question: str, files: Sequence[Path]) -> str:
    pages = [Document(file.read_text(), metadata={"source": file.name}) for file in files]
    passages = MarkdownTextSplitter(chunk_size=800, chunk_overlap=0).split_documents(pages)
    # Texts are sent as they are; the default sends OpenAI's token ids.
    embeddings = OpenAIEmbeddings(
        model=EMBEDDING_MODEL,
        base_url=f"{URL}/v1",
        api_key="unused",
        http_client=http,
        check_embedding_ctx_length=False,
        chunk_size=64,
    )
    store = InMemoryVectorStore.from_documents(passages, embeddings)
    best = store.similarity_search(question, k=12)
    if (ranking := reranker()) is not None:
        best = ranking.compress_documents(best, question)
    chat = ChatOpenAI(
        model=CHAT_MODEL, base_url=f"{URL}/v1", api_key="unused", http_client=http, temperature=0
    )
    text = "\n\n".join(f"[{one.metadata['source']}] {one.page_content}" for one in best[:4])
    return (PROMPT | chat).invoke({"passages": text, "question": question}).text


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(answer(sys.argv[1], [Path(name) for name in sys.argv[2:]]))
    print(f"cache: {outcomes['hits']} hits, {outcomes['misses']} misses")
