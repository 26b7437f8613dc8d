"""What the proxy adds to a chat request that misses, while the semantic tier is closed and open.

One client sends new questions one after the other: each to the upstream itself, through a server
whose tier is closed, and through one whose tier is open, in an order that changes. So all three see
the machine as it is at the moment, and what counts are the differences of medians, round by round.
"""

import itertools
import json
import random
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..errors import LoadTestError, NotAnswered
from ..servers.processes import running_server
from ..traffic.target import endpoint, user_message
from .caller import Answer, Caller

DIRECT, CLOSED, OPEN = "direct", "closed", "open"

_FORMS = (
    "How do I change the {} of my account?",
    "How can I change the {} of my account?",
    "How do I change the {} on my account?",
)
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "zo")

_OPENS = ("--chat-judge", "none", "--chat-max-error", "0.2")
"""Answers are only compared, and this upstream's are all the same: some hundred labels suffice."""

_NO_HITS = {"X-Cacheproxy-Min-Similarity": "1"}
"""The open tier looks for a neighbour, finds one, and may not serve it."""

_MOST_TAUGHT, _PATIENCE_S = 3_000, 60.0
_WARM_UP = 100


class Added(NamedTuple):
    """What one state adds at the median, milliseconds: of all rounds, the middle one and the ends.

    `direct_ms` and `proxied_ms` are medians over the rounds, too.
    """

    direct_ms: float
    proxied_ms: float
    added_ms: float
    least_ms: float
    most_ms: float

    def __str__(self) -> str:
        return (
            f"direct p50 {self.direct_ms:.2f} ms, proxied p50 {self.proxied_ms:.2f} ms;"
            f" added at p50: {self.added_ms:.2f} ms ({self.least_ms:.2f} to {self.most_ms:.2f})"
        )


class Misses:
    """Three ways to one upstream."""

    def __init__(self, stack: ExitStack, home: Path, model: str, upstream: str) -> None:
        """Start a server whose tier stays closed, and one whose tier is opened.

        Raises:
            LoadTestError: a server does not start, or the tier does not open.
        """
        flags = ("--upstream", f"{upstream}/v1")
        closed = stack.enter_context(running_server(home, model, *flags))
        opened = stack.enter_context(running_server(home, model, *flags, *_OPENS))
        self._callers = {
            DIRECT: Caller(endpoint(upstream, "chat")),
            CLOSED: Caller(endpoint(closed, "chat"), _NO_HITS),
            OPEN: Caller(endpoint(opened, "chat"), _NO_HITS),
        }
        self._words = _words()
        self._open(opened)

    def measure(self, requests: int, rounds: int, *, stream: bool) -> dict[str, Added]:
        """Return what each state adds; of streams, to the first byte.

        Raises:
            NotAnswered: an answer was cut short, or was no miss.
        """
        for _ in range(_WARM_UP):
            self._ask_all(stream=stream)
        medians: list[dict[str, float]] = []
        for _ in tqdm(range(rounds), unit="round", leave=False):
            times = [self._ask_all(stream=stream) for _ in range(max(1, requests // rounds))]
            medians.append(
                {name: statistics.median(one[name] for one in times) for name in times[0]}
            )
        return {state: _added(medians, state) for state in (CLOSED, OPEN)}

    def _ask_all(self, *, stream: bool) -> dict[str, float]:
        """Send one new question each way; return milliseconds until the first byte."""
        body = _body(_FORMS[0].format(next(self._words)), stream=stream)
        names = list(self._callers)
        random.shuffle(names)
        taken = {}
        for name in names:
            answer = self._callers[name].post(body)
            _check(name, answer, stream=stream)
            taken[name] = 1000 * answer.first_s
        return taken

    def _open(self, url: str) -> None:
        """Ask alike questions until the tier is open."""
        caller = Caller(endpoint(url, "chat"))
        for number, word in enumerate(self._words):
            for form in _FORMS:
                caller.post(_body(form.format(word), stream=False))
            if number % 20 == 19 and _is_open(url):
                return
            if number * len(_FORMS) >= _MOST_TAUGHT:
                break
        end = time.monotonic() + _PATIENCE_S
        while not _is_open(url):
            if time.monotonic() > end:
                raise LoadTestError("the semantic tier did not open")
            time.sleep(0.1)


def _words() -> Iterator[str]:
    """Yield made-up words, without numbers, which would tell questions apart by themselves."""
    made = ["".join(parts) for parts in itertools.product(_SYLLABLES, repeat=4)]
    random.Random(0).shuffle(made)  # noqa: S311
    yield from made


def _body(question: str, *, stream: bool) -> str:
    return json.dumps({"model": "bench", "messages": user_message(question), "stream": stream})


def _is_open(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310
        lines = response.read().decode().splitlines()
    shown = [line for line in lines if line.startswith("cacheproxy_semantic_certified{")]
    return any('model="bench"' in line and float(line.rsplit(" ", 1)[1]) == 1 for line in shown)


def _check(name: str, answer: Answer, *, stream: bool) -> None:
    if stream and not answer.body.rstrip().endswith(b"[DONE]"):
        raise NotAnswered(f"{name}: a stream was cut short")
    if name != DIRECT and "fwd=miss" not in answer.cache_status:
        raise NotAnswered(f"{name}: an answer was no miss: {answer.cache_status}")


def _added(medians: list[dict[str, float]], state: str) -> Added:
    added = [one[state] - one[DIRECT] for one in medians]
    direct, proxied = (statistics.median(one[name] for one in medians) for name in (DIRECT, state))
    return Added(direct, proxied, statistics.median(added), min(added), max(added))
