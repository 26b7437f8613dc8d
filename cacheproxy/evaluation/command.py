"""Implements `cacheproxy eval`: reads files and produces a study."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.answers import Answers, NoisyAnswers, WordedAnswers, read_answers
from cacheproxy.evaluation.chat import (
    SAME_ANSWER,
    make_chat_traffic,
    make_judged_traffic,
    promise_of_chat,
)
from cacheproxy.evaluation.judged_replay import JudgedReplayer
from cacheproxy.evaluation.replay import Traffic
from cacheproxy.evaluation.report import as_html, as_json, as_text
from cacheproxy.evaluation.retrieval import LEAST_DOCUMENTS, Recall, recall_by_similarity
from cacheproxy.evaluation.simulated_judge import parse_judge
from cacheproxy.evaluation.study import Encoders, Study, embed, make_traffic, run_study
from cacheproxy.evaluation.traffic import (
    Request,
    Texts,
    all_requests,
    draw_requests,
    joined,
    read_texts,
)
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.probes.static import StaticProbe
from cacheproxy.routes.judging.agreement import Comparer
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.judged.question_pair import rarity_of
from cacheproxy.thresholds.promise import promise_of

_TOKENIZED = 10_000


@dataclass(frozen=True)
class Wanted:
    """The arguments of the command line.

    Attributes:
        files: texts, or a log.
        then: texts of the second half, to simulate a shift of traffic.
        documents: a retriever's documents, to show what a similarity means to it.
        requests: how many to draw; None replays the files unchanged.
        report: path of the HTML page, or None.
        json_path: path of the figures as JSON, or None.
        work: folder in which vectors are kept, or None.
        seed: the seed of all random draws.
        is_chat: whether the texts are questions to a chat model.
        judge: a simulated judge's rates (see `parse_judge`) for an upstream that rewords every
            answer; None if all answers to a question are equal.
        answers: what that upstream answers (see `read_answers`); None: noise.
    """

    files: tuple[Path, ...]
    then: tuple[Path, ...]
    documents: tuple[Path, ...]
    requests: int | None
    report: Path | None
    json_path: Path | None
    work: Path | None
    seed: int
    is_chat: bool = False
    judge: str | None = None
    answers: Path | None = None


def run(wanted: Wanted, settings: Settings, installed: InstalledModel) -> str:
    """Return the study's table; write the requested files.

    Raises:
        ConfigError: a file cannot be read, a report needs a package that is not installed, or
            --chat and --documents are both given.
    """
    if wanted.is_chat and wanted.documents:
        raise ConfigError("--documents says nothing of a chat model: give --chat or --documents")
    if wanted.judge is not None and not wanted.is_chat:
        raise ConfigError("--judge requires --chat")
    if wanted.answers is not None and wanted.judge is None:
        raise ConfigError("--answers requires --judge")
    if wanted.report is not None:
        _require_matplotlib()
    texts, requests = _traffic_of(wanted)
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    if wanted.judge is not None:
        return _judged_replay(wanted, settings, installed, tokenizer, texts, requests)
    if wanted.is_chat:
        study = _chat_study(wanted, settings, installed, tokenizer, texts, requests)
    else:
        study = _embedding_study(wanted, settings, installed, tokenizer, texts, requests)
    if wanted.json_path is not None:
        wanted.json_path.write_text(json.dumps(as_json(study), indent=1) + "\n")
    if wanted.report is not None:
        title = f"Semantic cache: {', '.join(path.stem for path in wanted.files)}"
        wanted.report.write_text(as_html(study, title), encoding="utf-8")
    return as_text(study)


def _judged_replay(
    wanted: Wanted,
    settings: Settings,
    installed: InstalledModel,
    tokenizer: Tokenizer,
    texts: Texts,
    requests: list[Request],
) -> str:
    judge = parse_judge(wanted.judge or "")
    wordings = None if wanted.answers is None else read_answers(wanted.answers, texts)
    traffic = _chat_traffic(settings, installed, tokenizer, texts, requests)
    judged = make_judged_traffic(requests, texts, traffic, rarity_of(tokenizer.vocabulary()))
    encoder = OnnxEncoder(installed.graph, device=installed.device)

    async def embed(pieces: Sequence[str]) -> NDArray[np.float32]:
        ids = tokenizer.encode(pieces)
        return np.concatenate([encoder.encode(np.array([one], np.int64)) for one in ids])

    def answers(rng: np.random.Generator) -> Answers:
        if wordings is None:
            return NoisyAnswers(len(judged.texts), rng)
        return WordedAnswers(wordings, judged.groups, Comparer(embed), rng)

    replayer = JudgedReplayer(
        judged,
        judge,
        max_error=settings.chat.max_error,
        confidence=settings.chat.confidence,
        shares=(settings.chat.learning_share, settings.chat.open_share),
        answers=answers,
        seed=wanted.seed,
    )
    return replayer.run(lambda items: _bar(items, "judged")).as_text()


def _chat_study(
    wanted: Wanted,
    settings: Settings,
    installed: InstalledModel,
    tokenizer: Tokenizer,
    texts: Texts,
    requests: list[Request],
) -> Study:
    traffic = _chat_traffic(settings, installed, tokenizer, texts, requests)
    promise = promise_of_chat(settings.chat)
    study = run_study(
        traffic, promise, SAME_ANSWER, seed=wanted.seed, progress=_bar, checks_seconds=False
    )
    return replace(study, wrong_if="it was the answer to another group's question")


def _chat_traffic(
    settings: Settings,
    installed: InstalledModel,
    tokenizer: Tokenizer,
    texts: Texts,
    requests: list[Request],
) -> Traffic:
    if not (texts.groups or texts.same):
        raise ConfigError(
            "--chat needs texts with groups or pairs that tell which questions share an answer"
        )
    return make_chat_traffic(
        requests,
        _tokenize(tokenizer, [request.text for request in requests]),
        texts,
        Encoders(
            OnnxEncoder(installed.graph, device=installed.device).encode,
            StaticProbe(installed.static_probe),
            installed.fingerprint,
        ),
        min_tokens=settings.semantic.min_tokens,
        progress=_bar,
    )


def _embedding_study(
    wanted: Wanted,
    settings: Settings,
    installed: InstalledModel,
    tokenizer: Tokenizer,
    texts: Texts,
    requests: list[Request],
) -> Study:
    probe = make_probe(settings, installed)
    encoders = Encoders(
        OnnxEncoder(installed.graph, device=installed.device).encode,
        probe,
        f"{installed.fingerprint}:{probe.name}",
    )
    traffic = make_traffic(
        _tokenize(tokenizer, [request.text for request in requests]),
        encoders,
        min_tokens=settings.semantic.min_tokens,
        work=wanted.work,
        progress=_bar,
        differ=lambda one, other: texts.differ(requests[one].source, requests[other].source),
    )
    semantic = settings.semantic
    study = run_study(
        traffic, promise_of(semantic), semantic.min_similarity, seed=wanted.seed, progress=_bar
    )
    recall: list[Recall] | None = None
    if wanted.documents:
        documents = list(dict.fromkeys(read_texts(wanted.documents).texts))
        if len(documents) < LEAST_DOCUMENTS:
            raise ConfigError(f"--documents needs {LEAST_DOCUMENTS} of them or more")
        ids = [tuple(ids) for ids in _tokenize(tokenizer, documents)]
        vectors, _ = embed(ids, encoders, work=wanted.work, progress=_bar)
        recall = recall_by_similarity(traffic, vectors)
    return replace(study, is_labelled=texts.is_labelled, recall=recall)


def _traffic_of(wanted: Wanted) -> tuple[Texts, list[Request]]:
    """Return the texts of all files, and the requests for them."""
    texts = read_texts(wanted.files)
    if not wanted.then:
        return texts, _requests_of(texts, wanted.requests, wanted.seed)
    then = read_texts(wanted.then)
    half = None if wanted.requests is None else wanted.requests // 2
    requests = _requests_of(texts, half, wanted.seed)
    for text, source in _requests_of(then, half, wanted.seed + 1):
        requests.append(Request(text, len(texts.texts) + source))
    return joined(texts, then), requests


def _requests_of(texts: Texts, count: int | None, seed: int) -> list[Request]:
    return all_requests(texts) if count is None else draw_requests(texts, count, seed)


def _tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Sequence[int]]:
    ids: list[Sequence[int]] = []
    for start in _bar(range(0, len(texts), _TOKENIZED), "tokenising"):
        ids += tokenizer.encode(texts[start : start + _TOKENIZED])
    return ids


def _bar(items: Sequence[int], what: str) -> Sequence[int]:
    bar: Sequence[int] = tqdm(items, desc=what, leave=False)
    return bar


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("--report needs matplotlib: pip install 'cacheproxy[eval]'") from None
