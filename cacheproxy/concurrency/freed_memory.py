"""Returning freed memory to the operating system after requests with large bodies.

Two things keep it otherwise. An error's traceback holds frames that hold the error, and with it the
body; Python frees such circles only when its garbage collector runs, which this server makes rare.
And glibc keeps freed blocks on its heap: 2.9 GB stayed after 180 bodies of 16 MB (measured).
"""

import asyncio
import ctypes
import gc

_BUSY_BYTES = 64 * 2**20
_BUSY_S = 1.0
_QUIET_S = 30.0
"""After so many bytes, memory is returned within a second; after fewer, within 30 s. A pass takes
some 30 ms for 500 MB of small blocks, in a thread, and 20 ms for 300,000 objects, on the loop."""

_RECENT_GENERATIONS = 1


class FreedMemory:
    """Decides when to return memory; belongs to one event loop."""

    def __init__(self) -> None:
        self._freed_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._trim = _find_trim()

    def freed(self, size: int) -> None:
        """Note that a body of so many bytes is no longer needed."""
        self._freed_bytes += size
        is_busy = self._freed_bytes >= _BUSY_BYTES
        if self._timer is not None and (self._is_busy or not is_busy):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._set_timer(is_busy=is_busy)

    def _set_timer(self, *, is_busy: bool) -> None:
        self._is_busy = is_busy
        delay_s = _BUSY_S if is_busy else _QUIET_S
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._return)

    def _return(self) -> None:
        self._freed_bytes = 0
        self._timer = None
        if self._is_busy:
            gc.collect(_RECENT_GENERATIONS)
            self._set_timer(is_busy=False)  # for what is freed late, or was promoted
        else:
            gc.collect()
        if self._trim is not None:
            # In a thread: the call takes its time, and needs no GIL.
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)


def _find_trim() -> "ctypes._NamedFuncPointer | None":
    """Return glibc's `malloc_trim`; None with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
