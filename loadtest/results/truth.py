"""The truth check: compares what the clients saw with what the server counted.

Compared are requests by status, answers by the tier that they came from (misses included), and
texts by the tier that hit, by the growth of the server's counters during the phase. Requests of
anybody else during that time show up as a difference, too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..client.connection import NO_ANSWER
from ..client.fleet import Outline
from ..client.samples import TEXT_TIERS, TIERS, Samples
from .scrape import Metrics

_HITS = TEXT_TIERS[:3]


class Count(msgspec.Struct, frozen=True):
    """One number that both sides count.

    Attributes:
        what: is counted, in words.
        client: number that the clients saw.
        server: growth of the server's counter.
        slack: by how much the server may have counted more, for requests whose answer never came.
        loss: by how much it may have counted less, where a worker was killed.
    """

    what: str
    client: int
    server: int
    slack: int = 0
    loss: int = 0

    @property
    def agrees(self) -> bool:
        """Whether both sides agree."""
        return self.client - self.loss <= self.server <= self.client + self.slack


def check_truth(
    samples: Samples,
    outlines: Sequence[Outline],
    before: Metrics,
    after: Metrics,
    *,
    was_killed: bool = False,
) -> list[Count]:
    """Return everything that both sides counted in a phase.

    Where a worker `was_killed`, what it counted in its last second may be missing.
    """
    counts: list[Count] = []
    routes = [outline.route for outline in outlines]
    for route in sorted(set(routes)):
        mine = np.isin(samples["stream"], [i for i, one in enumerate(routes) if one == route])
        counts += _by_route(route, samples[mine], before, after)
    failed = samples["status"] != 200
    texts = np.array([outline.texts for outline in outlines], np.int64)
    # Texts of a request that failed may have been hits.
    lost = int(texts[samples["stream"][failed & (texts[samples["stream"]] > 1)]].sum())
    lost += int((samples["status"] == NO_ANSWER).sum())
    grown = _growth("cacheproxy_lookups_total", "tier", before, after, result="hit")
    for tier in _HITS:
        seen = int(samples[tier].astype(np.int64).sum())
        counts.append(Count(f"texts that hit in the {tier} tier", seen, grown.get(tier, 0), lost))
    if was_killed:
        loss = _most_in_a_moment(samples, texts)
        counts = [msgspec.structs.replace(count, loss=loss) for count in counts]
    return counts


def _most_in_a_moment(samples: Samples, texts: NDArray[np.int64]) -> int:
    """Return the most texts that were answered within two seconds on end."""
    answered_s = samples["due_s"] + samples["whole_us"] / 1e6
    weights = texts[samples["stream"]]
    by_second = np.bincount(answered_s.astype(np.int64), weights=weights)
    return int(max(by_second + np.append(by_second[1:], 0), default=0))


def _by_route(route: str, samples: Samples, before: Metrics, after: Metrics) -> list[Count]:
    lost = int((samples["status"] == NO_ANSWER).sum())
    statuses = Counter(samples["status"].tolist())
    grown = _growth("cacheproxy_requests_total", "status", before, after, route=route)
    names = sorted({str(status) for status in statuses if status != NO_ANSWER} | set(grown))
    counts = [
        Count(f"{route}: answers {name}", statuses.get(int(name), 0), grown.get(name, 0), lost)
        for name in names
    ]
    tiers = Counter(samples["tier"][samples["status"] == 200].tolist())
    duration = "cacheproxy_request_duration_seconds_count"
    grown = _growth(duration, "outcome", before, after, route=route)
    # An upstream's error is passed on, and has an outcome, too.
    failed = int((samples["status"] != 200).sum())
    for tier in sorted({TIERS[tier] for tier in tiers} | set(grown)):
        seen = tiers.get(TIERS.index(tier), 0) if tier in TIERS else 0
        counts.append(Count(f"{route}: answers from {tier}", seen, grown.get(tier, 0), failed))
    return counts


def _growth(
    name: str, label: str, before: Metrics, after: Metrics, **where: str
) -> Mapping[str, int]:
    earlier = before.sum_by(name, label, **where)
    later = after.sum_by(name, label, **where)
    grown = {key[0]: int(value - earlier.get(key, 0)) for key, value in later.items()}
    return {key: value for key, value in grown.items() if value}
