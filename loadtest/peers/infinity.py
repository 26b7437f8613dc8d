"""infinity_emb with its torch engine, because the model's folder has no ONNX file for the other."""

from .peer import Peer, Place


def _command(place: Place) -> list[str]:
    command = [str(place.python.parent / "infinity_emb"), "v2", "--model-id", str(place.model)]
    command += ["--served-model-name", "all-MiniLM-L6-v2", "--engine", "torch", "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(place.port), "--url-prefix", "/v1"]
    return [*command, "--no-bettertransformer"]


INFINITY = Peer(
    name="infinity",
    # The newest infinity does not start with later versions of these packages.
    packages=(
        ("torch==2.13.0",),
        (
            "infinity-emb[server,torch]==0.0.77",
            "transformers<4.49",
            "sentence-transformers<4",
            "optimum<1.24",
            "click<8.2",
            "typer<0.16",
            "huggingface_hub<1",
            "datasets<3.3",
            "pyarrow<18",
            "requests",
        ),
    ),
    command=_command,
    ready_path="/health",
    model="all-MiniLM-L6-v2",
    phases=("unseen",),
)
