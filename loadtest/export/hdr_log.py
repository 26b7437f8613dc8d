"""HdrHistogram's interval log (format 1.3, with tags), which its plotters and analysers read.

One line for each time window, phase, stream and tier; values are microseconds. The library writes
no tags, and its function for the start time fails (`iso_format`), so that both are written here.
"""

import re
from pathlib import Path
from typing import TextIO

from hdrh.log import HistogramLogWriter

from ..results.plots import decode
from ..results.result import PhaseResult, Result

_US_PER_MS = 1_000.0


def write_hdr_log(result: Result, path: Path) -> None:
    """Write the latencies of a result to a file; raises `OSError`."""
    with path.open("w", encoding="utf-8") as file:
        writer = HistogramLogWriter(file)
        writer.output_comment(f"[{result.scenario}; latencies in microseconds]")
        writer.output_comment("[Histogram log format version 1.3]")
        writer.output_comment(f"[StartTime: {result.started_at:.3f} (seconds since epoch)]")
        writer.output_comment(f"[BaseTime: {result.started_at:.3f} (seconds since epoch)]")
        writer.output_legend()
        elapsed_s = 0.0
        for phase in result.phases:
            starts_s = phase.started_at - result.started_at if phase.started_at else elapsed_s
            _write_phase(writer, file, phase, starts_s)
            elapsed_s += phase.seconds


def _write_phase(
    writer: HistogramLogWriter, file: TextIO, phase: PhaseResult, starts_s: float
) -> None:
    for stream in phase.streams:
        for latencies in stream.latencies:
            tag = "/".join(map(_tag, (phase.name, stream.name, latencies.tier)))
            for number, histogram in enumerate(decode(latencies)):
                start_s = starts_s + number * phase.window_s
                file.write(f"Tag={tag},")
                writer.output_interval_histogram(
                    histogram, start_s, start_s + phase.window_s, _US_PER_MS
                )


def _tag(name: str) -> str:
    """Return a name as a part of a tag, which may have neither blanks nor commas."""
    return re.sub(r"[\s,/]+", "_", name)
