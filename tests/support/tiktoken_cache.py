"""The files that tiktoken, as clients use it, would download."""

import hashlib
import lzma
from importlib.resources import files
from pathlib import Path

from cacheproxy.inference.openai_encodings import ENCODING_NAMES


def fill_tiktoken_cache(folder: Path) -> Path:
    """Put the vocabularies there, and return what the variable TIKTOKEN_CACHE_DIR has to say."""
    shipped = files("cacheproxy.inference").joinpath("openai_vocabularies")
    for name in ENCODING_NAMES:
        url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
        ranks = lzma.decompress(shipped.joinpath(f"{name}.tiktoken.xz").read_bytes())
        (folder / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()).write_bytes(ranks)
    return folder
