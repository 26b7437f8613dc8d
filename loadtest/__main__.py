"""`python -m loadtest` in a checkout, and `cacheproxy loadtest` once installed."""

import sys
from collections.abc import Sequence

_EXTRA = {"hdrh": "hdrhistogram"}
"""Modules that only the extra `loadtest` installs, with the packages that have them."""


def main(arguments: Sequence[str] | None = None, name: str = "python -m loadtest") -> None:
    """Run the command line; without the extra's libraries, say what to install and exit with 2."""
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        package = _EXTRA.get((error.name or "").split(".")[0])
        if package is None:
            raise
        sys.stderr.write(f"{name} needs {package}: pip install 'cacheproxy[loadtest]'\n")
        sys.exit(2)
    command(arguments, prog_name=name)


if __name__ == "__main__":
    main()
