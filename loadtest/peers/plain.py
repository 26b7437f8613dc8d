"""sentence-transformers behind a plain server, as one writes it in an afternoon.

The peer's own Python runs this file as `python plain.py MODEL_FOLDER PORT`. It imports nothing of
cacheproxy.
"""

import sys
from typing import Any


def serve(model_folder: str, port: int) -> None:
    """Serve `/v1/embeddings`, with one `encode` for each request, in threads."""
    import uvicorn
    from sentence_transformers import SentenceTransformer
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    model = SentenceTransformer(model_folder, device="cpu")

    def embed(texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = model.encode(texts, normalize_embeddings=True).tolist()
        return vectors

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def embeddings(request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        given = body["input"]
        vectors = await run_in_threadpool(embed, [given] if isinstance(given, str) else given)
        data = [
            {"object": "embedding", "index": i, "embedding": vector}
            for i, vector in enumerate(vectors)
        ]
        return JSONResponse({"object": "list", "data": data, "model": body["model"]})

    routes = [Route("/health", health), Route("/v1/embeddings", embeddings, methods=["POST"])]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
