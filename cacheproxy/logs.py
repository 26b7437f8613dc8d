"""Where the log goes, and what a line of it looks like."""

import logging
import sys


def start_logging(level: str, *, process_id: bool) -> None:
    """Log to standard error, from the given level on; lines say which process if asked to."""
    who = "[%(process)d] " if process_id else ""
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
