"""Measures the library: python bench.py FILE... --queries FILE [--chunks 100000]

The documents are repeated with a number in each chunk, so that no two chunks are equal, until there
are as many chunks as wanted. Then questions are asked one after the other, each for the first time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import httpx
import numpy as np
from database import connect, nearest_chunks
from embedding import URL, embed
from load import WORDS, load, read


def repeated(files: Sequence[Path], chunks: int) -> Iterator[tuple[str, str]]:
    """Yield documents, in which every chunk has a number of its own."""
    documents = [document for file in files for document in read(file)]
    number = count()
    made = 0
    for turn in count():
        for title, text in documents:
            words = text.split()
            step = WORDS - 1
            parts = [words[i : i + step] for i in range(0, len(words), step)][: chunks - made]
            made += len(parts)
            yield (
                f"{title} {turn}",
                " ".join(f"{next(number)} {' '.join(part)}" for part in parts),
            )
            if made >= chunks:
                return


def percentiles(times: Sequence[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p95 {cuts[94] * 1000:.1f} ms"


def timed(calls: Sequence[Callable[[], object]]) -> str:
    times = []
    for call in calls:
        began_at = time.perf_counter()
        call()
        times.append(time.perf_counter() - began_at)
    return percentiles(times)


def proxy_mb() -> float:
    lines = httpx.get(f"{URL}/metrics").text.splitlines()
    line = next(line for line in lines if line.startswith("process_resident_memory_bytes"))
    return float(line.split()[1]) / 1e6


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--queries", type=Path, required=True, help="JSON Lines with text or query")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=200, help="how many questions")
    parser.add_argument("--port", type=int, default=8001, help="of the application")
    arguments = parser.parse_args()
    path = os.environ.setdefault("LIBRARY", "bench.sqlite")

    began_at = time.perf_counter()
    added = load(path, repeated(arguments.files, arguments.chunks))
    seconds = time.perf_counter() - began_at
    print(f"loaded {added:,} chunks in {seconds:.0f} s")

    rows = [json.loads(line) for line in arguments.queries.open()]
    queries = [row.get("text") or row["query"] for row in rows][: arguments.asked]
    db = connect(path)
    vectors = [np.array(one).tobytes() for one in embed([f"{query} " for query in queries[:50]])]
    exact_sql = "SELECT id FROM chunks ORDER BY vec_distance_cosine(embedding, ?) LIMIT 10"
    exact = [[row[0] for row in db.execute(exact_sql, (one,))] for one in vectors[:20]]
    found = [nearest_chunks(db, one, 50) for one in vectors[:20]]
    hits = sum(len({*a} & {*b}) for a, b in zip(exact, found, strict=True))
    print("scan of bits alone:", timed([lambda v=v: nearest_chunks(db, v, 50) for v in vectors]))
    print(f"of the 10 nearest, the scan's 50 have {hits / sum(map(len, exact)):.1%}")

    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(arguments.port)]
    server = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{arguments.port}", timeout=60) as client:
            while True:
                try:
                    client.get("/search", params={"q": "ready"}).raise_for_status()
                    break
                except httpx.ConnectError:
                    time.sleep(0.1)

            def ask(query: str) -> list[dict]:
                answer = client.get("/search", params={"q": query}).raise_for_status().json()
                if answer["by_words_alone"]:
                    sys.exit("the proxy does not answer")
                return answer["results"]

            print("search, new questions:", timed([lambda q=q: ask(q) for q in queries]))
            print("search, known ones:", timed([lambda q=q: ask(q) for q in queries]))
            ids = [ask(query)[0]["chunk"] for query in queries]
            paths = [f"/chunks/{number}/related" for number in ids]
            print("related:", timed([lambda p=p: client.get(p).raise_for_status() for p in paths]))
        own, proxy = memory_mb(server.pid), proxy_mb()
        print(f"memory: application {own:.0f} MB, proxy {proxy:.0f} MB, both {own + proxy:.0f} MB")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
