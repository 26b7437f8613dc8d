"""Downloads files from the Hugging Face hub; run as a process of its own, by `fetch`.

A process of its own, because the hub's library may retry for minutes, or never return (seen with
2.4.0: its first call waits for a lock that it holds), where no hub can be reached; a process can
be ended. Says `reached` once the hub answers or its files are in the local cache, then a line for
each file with its path.

    python -m cacheproxy.modelkit.building.hub REPOSITORY REVISION FILE...
"""

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

_REACH_TIMEOUT_S = 3.0


def main(arguments: Sequence[str]) -> None:
    """Download the files in the order given."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache

    repository, revision, *files = arguments
    cached = all(
        isinstance(try_to_load_from_cache(repository, file, revision=revision), str)
        for file in files
    )
    if not cached and constants.HF_HUB_OFFLINE:
        sys.exit("HF_HUB_OFFLINE is set")
    if not cached:
        _reach(hf_hub_url(repository, files[0], revision=revision))
    print("reached", flush=True)
    for file in files:
        path = hf_hub_download(repository, file, revision=revision, local_files_only=cached)
        print(path, flush=True)


def _reach(url: str) -> None:
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # the hub's or HF_ENDPOINT's
    try:
        with urllib.request.urlopen(request, timeout=_REACH_TIMEOUT_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        # An error status also shows that the hub is reachable; the library handles it.
        error.close()
    except OSError as error:
        sys.exit(f"cannot be reached ({getattr(error, 'reason', error)})")


if __name__ == "__main__":
    main(sys.argv[1:])
