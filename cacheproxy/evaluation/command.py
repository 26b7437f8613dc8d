"""What `cacheproxy eval` does: files in, a study out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cacheproxy.config import Settings
from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.report import as_html, as_json, as_text
from cacheproxy.evaluation.study import Encoders, make_traffic, run_study
from cacheproxy.evaluation.traffic import draw_requests, read_texts
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.thresholds.promise import promise_of

_TOKENIZED = 10_000


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        files: texts, or a log.
        then: texts of the second half, where traffic shifts.
        requests: how many to draw; None replays the files as they are.
        report: where the page goes, if anywhere.
        json_path: where the figures go, if anywhere.
        work: where vectors are kept, if anywhere.
        seed: of all that is drawn.
    """

    files: tuple[Path, ...]
    then: tuple[Path, ...]
    requests: int | None
    report: Path | None
    json_path: Path | None
    work: Path | None
    seed: int


def run(wanted: Wanted, settings: Settings, installed: InstalledModel) -> str:
    """Return the study's table; write what is wanted.

    Raises:
        ConfigError: a file cannot be read, or a report needs what is not installed.
    """
    if wanted.report is not None:
        _require_matplotlib()
    texts = _texts_of(wanted)
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    ids: list[Sequence[int]] = []
    for start in _bar(range(0, len(texts), _TOKENIZED), "tokenising"):
        ids += tokenizer.encode(texts[start : start + _TOKENIZED])
    traffic = make_traffic(
        ids,
        Encoders(
            OnnxEncoder(installed.graph, device=installed.device).encode,
            OnnxEncoder(installed.shallow_probe).encode,
            f"{installed.fingerprint}:shallow",
        ),
        min_tokens=settings.semantic.min_tokens,
        work=wanted.work,
        progress=_bar,
    )
    semantic = settings.semantic
    study = run_study(
        traffic, promise_of(semantic), semantic.min_similarity, seed=wanted.seed, progress=_bar
    )
    if wanted.json_path is not None:
        wanted.json_path.write_text(json.dumps(as_json(study), indent=1) + "\n")
    if wanted.report is not None:
        title = f"Semantic cache: {', '.join(path.stem for path in wanted.files)}"
        wanted.report.write_text(as_html(study, title), encoding="utf-8")
    return as_text(study)


def _texts_of(wanted: Wanted) -> list[str]:
    halves = [read_texts(wanted.files)]
    if wanted.then:
        halves.append(read_texts(wanted.then))
    if wanted.requests is None:
        return [text for half in halves for text in half]
    count = wanted.requests // len(halves)
    return [
        text
        for number, half in enumerate(halves)
        for text in draw_requests(half, count, wanted.seed + number)
    ]


def _bar(items: Sequence[int], what: str) -> Sequence[int]:
    bar: Sequence[int] = tqdm(items, desc=what, leave=False)
    return bar


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("--report needs matplotlib: pip install 'cacheproxy[eval]'") from None
