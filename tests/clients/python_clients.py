"""Makes every call of the Python clients that are installed, and prints what each gave.

    python python_clients.py http://127.0.0.1:8080 [CLIENT...]

The clients are as they are published, with their defaults but for the server's address, an API key
and the model's name. A line of JSON for each call: the client, the call, what it gave (a vector, a
list of vectors or a text), or the error. A client that is not installed has no line.
"""

import json
import sys
from collections.abc import Callable

TEXT = "how do I reset my password?"
TEXTS = ["hello", TEXT, "Straße und 你好"]
QUESTION = "What is a proxy?"
EMBEDDER, CHAT = "text-embedding-3-small", "gpt-4o-mini"
MODERATOR = "omni-moderation-latest"
RERANKER = "ms-marco-MiniLM-L-6-v2"

URL = sys.argv[1]
V1 = f"{URL}/v1"
CALLS: list[tuple[str, str, Callable]] = []


def call(client: str, name: str):
    def add(made: Callable) -> Callable:
        CALLS.append((client, name, made))
        return made

    return add


def _openai():
    from openai import OpenAI

    return OpenAI(base_url=V1, api_key="x", max_retries=0)


@call("openai (Python)", "client.embeddings.create")
def _():
    return [one.embedding for one in _openai().embeddings.create(model=EMBEDDER, input=TEXTS).data]


def _messages(text=QUESTION):
    return [{"role": "user", "content": text}]


@call("openai (Python)", "chat.completions.create")
def _():
    answer = _openai().chat.completions.create(model=CHAT, messages=_messages())
    return answer.choices[0].message.content


@call("openai (Python)", "chat.completions.create, streamed")
def _():
    parts = _openai().chat.completions.create(model=CHAT, messages=_messages(), stream=True)
    return "".join(part.choices[0].delta.content or "" for part in parts)


@call("openai (Python)", "responses.create")
def _():
    return _openai().responses.create(model=CHAT, input=QUESTION).output_text


@call("openai (Python)", "responses.stream")
def _():
    with _openai().responses.stream(model=CHAT, input=QUESTION) as stream:
        return stream.get_final_response().output_text


@call("openai (Python)", "completions.create")
def _():
    return _openai().completions.create(model=CHAT, prompt=QUESTION).choices[0].text


@call("openai (Python)", "models.retrieve")
def _():
    return _openai().models.retrieve("all-MiniLM-L6-v2").id


@call("openai (Python)", "models.retrieve, of an upstream")
def _():
    return _openai().models.retrieve(CHAT).id


@call("openai (Python)", "models.list")
def _():
    return _known({one.id for one in _openai().models.list()})


@call("openai (Python)", "moderations.create")
def _():
    (result,) = _openai().moderations.create(model=MODERATOR, input=QUESTION).results
    return f"flagged {result.flagged}"


def _known(names):
    return "names " + " ".join(sorted(names & {CHAT, RERANKER, "all-MiniLM-L6-v2"}))


def _langchain():
    from langchain_openai import OpenAIEmbeddings

    return OpenAIEmbeddings(model=EMBEDDER, base_url=V1, api_key="x")


@call("LangChain", "OpenAIEmbeddings.embed_documents")
def _():
    return _langchain().embed_documents(TEXTS)


@call("LangChain", "OpenAIEmbeddings.embed_query")
def _():
    return _langchain().embed_query(TEXT)


def _langchain_chat():
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=CHAT, base_url=V1, api_key="x")


@call("LangChain", "ChatOpenAI.invoke")
def _():
    return _langchain_chat().invoke(QUESTION).text


@call("LangChain", "ChatOpenAI.stream")
def _():
    return "".join(part.text for part in _langchain_chat().stream(QUESTION))


def _llama_index():
    from llama_index.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(model=EMBEDDER, api_base=V1, api_key="x")


@call("LlamaIndex", "OpenAIEmbedding.get_text_embedding_batch")
def _():
    return _llama_index().get_text_embedding_batch(TEXTS)


@call("LlamaIndex", "OpenAIEmbedding.get_query_embedding")
def _():
    return _llama_index().get_query_embedding(TEXT)


def _llama_llm():
    from llama_index.llms.openai import OpenAI

    return OpenAI(model=CHAT, api_base=V1, api_key="x")


@call("LlamaIndex", "OpenAI.complete")
def _():
    return _llama_llm().complete(QUESTION).text


@call("LlamaIndex", "OpenAI.stream_complete")
def _():
    return "".join(part.delta or "" for part in _llama_llm().stream_complete(QUESTION))


def _secret():
    from haystack.utils import Secret

    return Secret.from_token("x")


@call("Haystack", "OpenAIDocumentEmbedder")
def _():
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder

    embedder = OpenAIDocumentEmbedder(
        api_key=_secret(), model=EMBEDDER, api_base_url=V1, progress_bar=False
    )
    documents = embedder.run([Document(content=text) for text in TEXTS])["documents"]
    return [document.embedding for document in documents]


@call("Haystack", "OpenAITextEmbedder")
def _():
    from haystack.components.embedders import OpenAITextEmbedder

    embedder = OpenAITextEmbedder(api_key=_secret(), model=EMBEDDER, api_base_url=V1)
    return embedder.run(TEXT)["embedding"]


@call("Haystack", "OpenAIChatGenerator")
def _():
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage

    generator = OpenAIChatGenerator(api_key=_secret(), model=CHAT, api_base_url=V1)
    return generator.run([ChatMessage.from_user(QUESTION)])["replies"][0].text


@call("LiteLLM", "embedding")
def _():
    import litellm

    answer = litellm.embedding(f"openai/{EMBEDDER}", input=TEXTS, api_base=V1, api_key="x")
    return [one["embedding"] for one in answer.data]


@call("LiteLLM", "completion")
def _():
    import litellm

    model = f"openai/{CHAT}"
    answer = litellm.completion(model, messages=_messages(), api_base=V1, api_key="x")
    return answer.choices[0].message.content


@call("LiteLLM", "completion, streamed")
def _():
    import litellm

    model = f"openai/{CHAT}"
    parts = litellm.completion(model, messages=_messages(), api_base=V1, api_key="x", stream=True)
    return "".join(part.choices[0].delta.content or "" for part in parts)


def _anthropic():
    from anthropic import Anthropic

    return Anthropic(base_url=URL, api_key="x", max_retries=0)


@call("Anthropic (Python)", "messages.create")
def _():
    answer = _anthropic().messages.create(model=CHAT, max_tokens=64, messages=_messages())
    return answer.content[0].text


@call("Anthropic (Python)", "messages.stream")
def _():
    made = _anthropic().messages.stream(model=CHAT, max_tokens=64, messages=_messages())
    with made as stream:
        return "".join(stream.text_stream)


def _cohere(version):
    import cohere

    made = cohere.ClientV2 if version == 2 else cohere.Client
    return made(api_key="x", base_url=URL)


@call("Cohere (Python)", "ClientV2.embed")
def _():
    answer = _cohere(2).embed(model=EMBEDDER, texts=TEXTS, input_type="search_document")
    return answer.embeddings.float_


@call("Cohere (Python)", "Client.embed")
def _():
    return _cohere(1).embed(model=EMBEDDER, texts=TEXTS, input_type="search_document").embeddings


def _ranks(answer):
    return "ranks " + " ".join(str(one.index) for one in answer.results)


@call("Cohere (Python)", "ClientV2.rerank")
def _():
    return _ranks(_cohere(2).rerank(model=RERANKER, query=QUESTION, documents=TEXTS))


@call("Cohere (Python)", "Client.rerank")
def _():
    return _ranks(_cohere(1).rerank(model=RERANKER, query=QUESTION, documents=TEXTS))


def _hub():
    from huggingface_hub import InferenceClient

    return InferenceClient(base_url=V1, api_key="x")


@call("huggingface_hub", "InferenceClient.chat_completion")
def _():
    return _hub().chat_completion(_messages(), model=CHAT).choices[0].message.content


@call("huggingface_hub", "InferenceClient.chat_completion, streamed")
def _():
    client = _hub()  # kept: without a client its stream is closed
    parts = client.chat_completion(_messages(), model=CHAT, stream=True)
    return "".join(part.choices[0].delta.content or "" for part in parts)


@call("huggingface_hub", "InferenceClient.feature_extraction")
def _():
    from huggingface_hub import InferenceClient

    return InferenceClient(model=f"{URL}/embed").feature_extraction(TEXT)[0].tolist()


def _hub_at(path=""):
    from huggingface_hub import InferenceClient

    return InferenceClient(model=f"{URL}{path}", provider="hf-inference")


@call("huggingface_hub", "InferenceClient.sentence_similarity")
def _():
    found = _hub_at("/similarity").sentence_similarity(TEXT, other_sentences=TEXTS)
    return {"cosines": found}


@call("huggingface_hub", "InferenceClient.get_endpoint_info")
def _():
    return _hub_at().get_endpoint_info()["model_id"]


@call("huggingface_hub", "InferenceClient.health_check")
def _():
    return f"healthy {_hub_at().health_check()}"


def _tei(path, **body):
    import httpx

    return httpx.post(f"{URL}{path}", json=body).raise_for_status().json()


@call("text-embeddings-inference (httpx)", "POST /rerank")
def _():
    found = _tei("/rerank", query=QUESTION, texts=TEXTS)
    return "ranks " + " ".join(str(one["index"]) for one in found)


@call("text-embeddings-inference (httpx)", "POST /tokenize")
def _():
    (tokens,) = _tei("/tokenize", inputs=TEXT)
    return "tokens " + " ".join(one["text"] for one in tokens)


def main() -> None:
    asked = set(sys.argv[2:])
    for client, name, made in CALLS:
        if asked and client not in asked:
            continue
        line = {"client": client, "call": name}
        try:
            line["gave"] = made()
        except ImportError:
            continue
        except Exception as error:  # whatever a client raises is the result
            line["error"] = f"{type(error).__name__}: {error}"[:500]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
