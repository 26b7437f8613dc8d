"""sentence-transformers behind the plain server of `plain.py`."""

from pathlib import Path

from .peer import Peer, Place


def _command(place: Place) -> list[str]:
    server = Path(__file__).with_name("plain.py")
    # -P, because this file beside the server has the name of the package that it imports.
    return [str(place.python), "-P", str(server), str(place.model), str(place.port)]


SENTENCE_TRANSFORMERS = Peer(
    name="sentence-transformers, plain server",
    packages=(("torch==2.13.0",), ("sentence-transformers", "starlette", "uvicorn[standard]")),
    command=_command,
    ready_path="/health",
    model="all-MiniLM-L6-v2",
    phases=("unseen",),
)
