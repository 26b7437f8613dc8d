"""No core dumps: the process's memory holds prompts of all tenants, and keys.

The limit alone is not enough on Linux, as it is not looked at where dumps are piped to a program;
a process that is not dumpable (prctl(2), PR_SET_DUMPABLE) leaves none, and its memory and
environment cannot be read by other processes of its user either.
"""

import ctypes
import logging
import resource
import sys

logger = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Keep this process from leaving its memory in a file; children inherit the limit only."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        except (OSError, AttributeError) as error:
            logger.warning("core dumps are limited only: %s", error)
