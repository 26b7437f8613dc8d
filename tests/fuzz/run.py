"""Searches for inputs that break a parser: python tests/fuzz/run.py [TARGET ...] [--seconds N]

Each target runs for so long in a process of its own, guided by coverage (atheris, libFuzzer), from
the inputs in `corpus/TARGET` and from those of earlier runs in `--found`. It stops at the first
target that breaks, with the input beside the corpus as `crash-…`. `--coverage` tells how much of
each parser the inputs reach; `--keep` adds a small set of inputs that reach the same to the corpus.

It needs the extra `fuzz`, on Linux.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
WORDS = ROOT / "tests" / "fuzz" / "words.txt"

_BROKEN = "=== Uncaught Python exception"

MIXED = "mixed"
"""A target that is each of them by turns, for a short search."""

MOST_INPUT_BYTES = 4_096
MOST_KEPT_BYTES = 1_024
SLOW_INPUT_S = 10
MOST_MB = 2_048

sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def main() -> None:
    """Run the targets one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=3_600, help="for each target")
    parser.add_argument("--found", type=Path, help="folder that keeps what runs find")
    parser.add_argument("--seed", type=int, default=0, help="of the search; 0 picks one")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    parser.add_argument("--coverage", action="store_true", help="tell coverage; search nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.coverage:
        tell_coverage(given.found)
    elif given.one:
        search(given.one, given.found, given.seconds, given.seed)
    else:
        run_all(given)


def run_all(given: argparse.Namespace) -> None:
    """Run each target in a process of its own."""
    from fuzzing import TARGETS

    with tempfile.TemporaryDirectory() as fresh:
        found = given.found or Path(fresh)
        for name in given.targets or TARGETS:
            (found / name).mkdir(parents=True, exist_ok=True)
            if name == MIXED:
                mix(found)
            command = [sys.executable, __file__, "--one", name, "--found", str(found)]
            command += ["--seconds", str(given.seconds), "--seed", str(given.seed)]
            ended = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if ended.returncode:
                log = ended.stderr
                print(log[max(0, log.find(_BROKEN)) :][-4_000:])
                sys.exit(f"{name}: broken; the input is in {found}/{name}.broken-*")
            print(f"{name}: {summary(ended.stderr)}", flush=True)
            if given.keep:
                keep(name, found)


def summary(log: str) -> str:
    """Return the last line of libFuzzer's that counts."""
    lines = [line for line in log.splitlines() if line.startswith("#") or "Done" in line]
    return " | ".join(line.strip() for line in lines[-2:])


def search(name: str, found: Path, seconds: int, seed: int) -> None:
    """Search in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["cacheproxy", "loadtest"]):
        from fuzzing import TARGETS

    target = TARGETS.get(name, one_of(list(TARGETS.values())))
    crashes = found / f"{name}.broken-"
    options = [f"-max_total_time={seconds}", f"-max_len={MOST_INPUT_BYTES}", f"-seed={seed}"]
    options += [f"-timeout={SLOW_INPUT_S}", f"-rss_limit_mb={MOST_MB}", f"-dict={WORDS}"]
    options += [f"-artifact_prefix={crashes}", "-print_final_stats=1"]
    folders = [str(found / name), *([str(CORPUS / name)] if name in TARGETS else [])]
    atheris.Setup([sys.argv[0], *options, *folders], target)
    atheris.Fuzz()


def one_of(targets):
    """Return a target whose input's first byte chooses among these."""

    def target(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)](data[1:])

    return target


def mix(found: Path) -> None:
    """Make the first inputs of `MIXED` from all corpora."""
    from fuzzing import TARGETS

    for number, name in enumerate(TARGETS):
        for path in (CORPUS / name).iterdir():
            mixed = found / MIXED / f"{name}-{path.name}"
            mixed.write_bytes(bytes([number]) + path.read_bytes())


def keep(name: str, found: Path) -> None:
    """Add to the corpus a small set of inputs that reach what all of them reach."""
    reached: set[tuple[str, int]] = set()
    kept = CORPUS / name
    kept.mkdir(exist_ok=True)
    mine = sorted(kept.iterdir())
    others = sorted((found / name).iterdir(), key=lambda path: path.stat().st_size)
    for path in [*mine, *others]:
        if path.stat().st_size > MOST_KEPT_BYTES:
            continue
        lines = lines_of(name, [path])
        if path not in mine and lines - reached:
            (kept / path.name[:12]).write_bytes(path.read_bytes())
        reached |= lines


def lines_of(name: str, paths: list[Path]) -> set[tuple[str, int]]:
    """Return the lines of ours that a target runs on these inputs, as file and number."""
    from fuzzing import TARGETS

    reached: set[tuple[str, int]] = set()
    ours = (str(ROOT / "cacheproxy"), str(ROOT / "loadtest"))

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(ours):
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        for path in paths:
            TARGETS[name](path.read_bytes())
    finally:
        sys.settrace(None)
    return reached


PARSERS = (
    *("api/callers", "api/control", "api/dialects/embed", "api/dialects/embedding_options"),
    *("api/dialects/openai", "api/litellm_control", "api/request/body"),
    *("api/request/header_fields", "evaluation/traffic", "inference/token_ids", "records"),
    *("routes/chat/record", "routes/chat/signature", "routes/dialects/chat"),
    *("routes/dialects/chat_stream", "routes/dialects/completion", "routes/dialects/legacy"),
    *("routes/dialects/messages", "routes/dialects/request", "routes/dialects/responses"),
    *("routes/dialects/sse", "routes/dialects/text", "server/http/connection"),
    *("settings/sources", "stores/redis/purging/notices", "stores/redis/search"),
    *("stores/redis/url", "telemetry/request_trace", "thresholds/judged/evidence"),
    *("thresholds/ledger", "validation"),
)
"""Modules whose coverage is told."""


def tell_coverage(found: Path | None) -> None:
    """Print how many of each parser's lines inside functions the inputs reach."""
    from fuzzing import TARGETS

    reached: set[tuple[str, int]] = set()
    for name in TARGETS:
        folders = [CORPUS / name, *([found / name] if found else [])]
        paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
        reached |= lines_of(name, paths)
    of_all = of_reached = 0
    for parser in PARSERS:
        path = ROOT / "cacheproxy" / f"{parser}.py"
        lines = code_lines(path)
        hit = {line for file, line in reached if file == str(path)} & lines
        of_all, of_reached = of_all + len(lines), of_reached + len(hit)
        print(f"{parser:34} {len(hit):4} of {len(lines):4} lines  {len(hit) / len(lines):4.0%}")
    print(f"{'all':34} {of_reached:4} of {of_all:4} lines  {of_reached / of_all:4.0%}")


def code_lines(path: Path) -> set[int]:
    """Return the lines of a file that stand inside functions and run."""
    module = compile(path.read_text(), str(path), "exec")
    lines: set[int] = set()
    codes = [const for const in module.co_consts if hasattr(const, "co_lines")]
    while codes:
        code = codes.pop()
        inner = [const for const in code.co_consts if hasattr(const, "co_lines")]
        codes += inner
        is_function = bool(code.co_flags & 1)  # CO_OPTIMIZED: a function, not a class body
        if is_function:
            lines |= {line for *_, line in code.co_lines() if line and line != code.co_firstlineno}
    return lines


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
