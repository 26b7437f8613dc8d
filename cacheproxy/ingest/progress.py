"""Shows how an ingestion goes: one line that is rewritten on a terminal, else a line now and then.

The rate is that of this run; the time left follows from the bytes of the input that are read.
"""

import sys
import time
from collections.abc import Callable

from cacheproxy.ingest.ingest import Progress
from cacheproxy.modelkit.progress import on_terminal, say

_TERMINAL_S, _LINE_S = 0.5, 10.0


class Display:
    """Prints progress to standard error, not too often."""

    def __init__(
        self, what: str, monotonic: Callable[[], float] = time.monotonic, *, of: str = "rows"
    ) -> None:
        self._what = what
        self._of = of
        self._monotonic = monotonic
        self._began_at = self._shown_at = monotonic()
        self._began_at_byte: int | None = None
        self._is_terminal = on_terminal()

    def __call__(self, progress: Progress) -> None:
        """Show progress, if it is time."""
        now = self._monotonic()
        if self._began_at_byte is None:
            self._began_at_byte = 0 if not progress.taken_up else progress.position.read
        if now - self._shown_at < (_TERMINAL_S if self._is_terminal else _LINE_S):
            return
        self._shown_at = now
        line = self.line(progress, now)
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            say(line)

    def end(self, progress: Progress) -> None:
        """Show the result."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
        elapsed_s = max(self._monotonic() - self._began_at, 1e-9)
        new = progress.rows - progress.taken_up
        parts = [f"{progress.rows:,} {self._of}", f"{new / elapsed_s:,.0f} {self._of}/s"]
        if progress.taken_up:
            parts.insert(1, f"{progress.taken_up:,} of them done before")
        if progress.refused:
            parts.append(f"{progress.refused:,} refused")
        say(f"{self._what}: {', '.join(parts)}")

    def line(self, progress: Progress, now: float) -> str:
        """Return the line for a moment, monotonic seconds."""
        elapsed_s = max(now - self._began_at, 1e-9)
        rate = (progress.rows - progress.taken_up) / elapsed_s
        parts = [f"{progress.rows:,} {self._of}", f"{rate:,.0f} {self._of}/s"]
        position = progress.position
        if position.total:
            parts.append(f"{position.read / position.total:.0%}")
            read = position.read - (self._began_at_byte or 0)
            if read > 0:
                left_s = elapsed_s * (position.total - position.read) / read
                parts.append(f"{_clock(left_s)} left")
        if progress.refused:
            parts.append(f"{progress.refused:,} refused")
        return f"{self._what}: {', '.join(parts)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
