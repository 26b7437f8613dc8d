"""sentence-transformers behind the plain server of `plain.py`."""

from pathlib import Path

from loadtest.peers.peer import Peer, Place


def _command(place: Place) -> list[str]:
    server = Path(__file__).with_name("plain.py")
    # -P: beside the server lies this file, which is not the package of that name.
    return [str(place.python), "-P", str(server), str(place.model), str(place.port)]


SENTENCE_TRANSFORMERS = Peer(
    name="sentence-transformers, plain server",
    packages=(("torch==2.13.0",), ("sentence-transformers", "starlette", "uvicorn[standard]")),
    command=_command,
    ready_path="/health",
    model="all-MiniLM-L6-v2",
    phases=("unseen",),
)
