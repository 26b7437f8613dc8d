"""What the server's processes hold over a whole run: memory, handles, threads, the store."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

_SETTLE = 0.2
"""Share of the run that the slopes leave out: caches fill, and the allocator finds its size."""

_SAMPLES = 600
_PAGE_BYTES = 4096


class Vital(msgspec.Struct, frozen=True):
    """One moment.

    Attributes:
        at_s: since the run began.
        memory_bytes: resident memory by process id.
        handles: open files and sockets by process id.
        threads: number of threads by process id.
        store_bytes: size of the store's files.
    """

    at_s: float
    memory_bytes: dict[str, int]
    handles: dict[str, int]
    threads: dict[str, int]
    store_bytes: int


@dataclass
class Monitor:
    """Looks at a process and its children now and then, in a thread, during a `with` block."""

    pid: int
    store: Path
    seconds: float
    vitals: list[Vital] = field(default_factory=list)

    def __enter__(self) -> "Monitor":
        self._over = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while True:
            self.vitals.append(self._look())
            if self._over.wait(max(1.0, self.seconds / _SAMPLES)):
                return

    def _look(self) -> Vital:
        found: dict[str, tuple[int, int, int]] = {}
        for pid in [self.pid, *children_of(self.pid)]:
            place = Path(f"/proc/{pid}")
            try:
                memory = int((place / "statm").read_text().split()[1]) * _PAGE_BYTES
                handles = len(list((place / "fd").iterdir()))
                found[str(pid)] = memory, handles, len(list((place / "task").iterdir()))
            except OSError:
                continue  # it has just ended
        files = [path for path in self.store.parent.glob(f"{self.store.name}*") if path.is_file()]
        return Vital(
            time.monotonic() - self._started,
            {pid: memory for pid, (memory, _, _) in found.items()},
            {pid: handles for pid, (_, handles, _) in found.items()},
            {pid: threads for pid, (_, _, threads) in found.items()},
            sum(path.stat().st_size for path in files),
        )


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children, the oldest first."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return sorted(map(int, found), key=_started)


def _started(pid: int) -> int:
    """Return when a process was started, in clock ticks: ids begin anew after the highest."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0  # it has just ended
    return int(stat.rpartition(")")[2].split()[19])  # field 22, proc(5)


def slopes(vitals: Sequence[Vital]) -> dict[str, float]:
    """Return how the processes that lived throughout have changed, a fifth of the run left out.

    `memory_mb_per_h` is the slope of the line through their summed memory (least squares), the
    others are last value minus first one, taken as medians of a tenth of the moments.
    """
    if not vitals:
        return {}
    settled = [one for one in vitals if one.at_s >= _SETTLE * vitals[-1].at_s]
    steady = set.intersection(*(set(one.memory_bytes) for one in settled))
    if len(settled) < 3 or not steady:
        return {}
    at_h = np.array([one.at_s for one in settled]) / 3600
    memory = np.array([sum(one.memory_bytes[pid] for pid in steady) for one in settled]) / 1e6
    slope, _ = np.polyfit(at_h, memory, 1)

    def grown(values: Sequence[int]) -> float:
        part = max(1, len(values) // 10)
        return float(np.median(values[-part:]) - np.median(values[:part]))

    return {
        "memory_mb_per_h": float(slope),
        "steady_processes": float(len(steady)),
        "steady_memory_mb": float(memory[-1]),
        "handles_grown": grown([sum(one.handles[pid] for pid in steady) for one in settled]),
        "threads_grown": grown([sum(one.threads[pid] for pid in steady) for one in settled]),
        "store_mb": settled[-1].store_bytes / 1e6,
        "store_mb_grown": grown([one.store_bytes for one in settled]) / 1e6,
    }
