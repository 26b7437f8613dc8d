"""Whether a judge can be relied on at all: how it does on pairs whose verdict is known.

The rates go into the bound (`limits`); what is told here is when there is no use in going on. What
it is to be asked next about itself is told here, too.
"""

import math

from cacheproxy.thresholds.bounds import lower_limit, rate_upper_limit
from cacheproxy.thresholds.judged.evidence import Evidence, Items, Kind, Outcome
from cacheproxy.thresholds.judged.limits import sensitivity_of

__all__ = ["false_rejects", "next_kind", "sensitivity_of", "why_aside"]

_CONFIDENCE = 0.95
_MOST_FALSE_REJECTS = 0.05
_LEAST_SENSITIVITY = 0.5
_LATEST = 400
"""Labels among which false rejects are counted: a judge that has become better is heard."""

_ALL_AT_FIRST, _LEAST_OWN, _PER_ROOT = 15, 0.05, 1.5
"""Labels that all have a control of a fresh answer, then the least share, and the share as a
multiple of the root of the rate of false rejects."""

_LEAST_ASKED = 24
_MOST_UNREADABLE = 0.5

_RECENT = 24
"""Labels, with which the controls since then are compared."""

_AT_FIRST, _EARLY = 20, 0.45
"""Of each kind, soon: at most so many a label. A kind counts from 20 on (`limits`). With 40, and
twice the share of controls of fresh answers, two fifths of the requests were for controls, and the
tier opened later: at request 6,026 and 9,454 in place of 5,248 and 6,122 (Quora's groups, judges
.95/.02 and .90/.05, medians of 20 seeds)."""

_WHILE_CLOSED, _WHILE_OPEN = 0.04, 0.12
"""Controls a label later: once open few labels come, and a judge that has changed must be seen."""

_INJECTED_AT_FIRST, _INJECTED_EVERY = 12, 12


def false_rejects(labels: Items) -> float:
    """Return the share of right answers that are rejected, by the latest controls."""
    rejected, asked = _own(labels)
    return rejected / asked if asked else 0.0


def share_of_controls(labels: Items) -> float:
    """Return the share of labels that are to have a control.

    A control tells most where false rejects are as frequent as rejections of what is served; where
    there were none so far it takes little out of the bound.
    """
    rejected, asked = _own(labels)
    if asked < _ALL_AT_FIRST:
        return 1.0
    rate = (rejected + 0.25) / (asked + 0.5)
    return min(1.0, max(_LEAST_OWN, _PER_ROOT * math.sqrt(rate)))


def why_aside(evidence: Evidence) -> str | None:
    """Return why the judge's verdicts are not to be relied on, None if they are."""
    labels, controls = evidence.labels, evidence.controls
    if reason := _why_unreadable(labels, controls):
        return reason
    rejected, asked = _own(labels)
    if lower_limit(rejected, asked, _CONFIDENCE) > _MOST_FALSE_REJECTS:
        return f"the judge rejects {rejected / asked:.0%} of the upstream's own fresh answers"
    wrong, asked = _rejected(controls, Kind.HARD, Kind.TRAFFIC)
    if asked >= _LEAST_ASKED and rate_upper_limit(wrong, asked, _CONFIDENCE) < _LEAST_SENSITIVITY:
        return f"the judge accepts {1 - wrong / asked:.0%} of wrong answers"
    seen = lower_limit(wrong, asked, _CONFIDENCE)
    wrong, asked = _rejected(controls, Kind.INJECTED)
    if asked >= _INJECTED_AT_FIRST // 2 and rate_upper_limit(wrong, asked, 0.999) < seen:
        return "the judge follows instructions in what it is to judge"
    return None


def next_kind(labels: Items, controls: Items, *, is_open: bool) -> Kind | None:
    """Return the kind of wrong pair to ask about now; None if it is not their turn."""
    counts = {kind: int((controls["kind"] == kind).sum()) for kind in Kind}
    hard, traffic, injected = (counts[kind] for kind in (Kind.HARD, Kind.TRAFFIC, Kind.INJECTED))
    recent = labels["at"][-_RECENT:]
    since = recent[0] if len(recent) else -1.0
    asked = int(((controls["kind"] <= Kind.INJECTED) & (controls["at"] >= since)).sum())
    if min(hard, traffic) < _AT_FIRST:
        most = _EARLY * (len(recent) + 1)
    else:
        most = (_WHILE_OPEN if is_open else _WHILE_CLOSED) * len(recent)
    if asked >= most:
        return None
    if injected < min(_INJECTED_AT_FIRST, hard // 2) or injected * _INJECTED_EVERY < hard:
        return Kind.INJECTED
    return Kind.HARD if hard <= traffic else Kind.TRAFFIC


def _own(labels: Items) -> tuple[int, int]:
    outcomes = labels["control"]
    outcomes = outcomes[outcomes <= Outcome.REJECTED][-_LATEST:]
    return int((outcomes == Outcome.REJECTED).sum()), len(outcomes)


def _rejected(controls: Items, *kinds: Kind) -> tuple[int, int]:
    outcomes = controls["outcome"][[kind in kinds for kind in controls["kind"].tolist()]]
    outcomes = outcomes[outcomes <= Outcome.REJECTED]
    return int((outcomes == Outcome.REJECTED).sum()), len(outcomes)


def _why_unreadable(labels: Items, controls: Items) -> str | None:
    """Return why replies that are neither word forbid to rely on the others."""
    unreadable = {
        kind: int(((controls["kind"] == kind) & (controls["outcome"] == Outcome.UNREADABLE)).sum())
        for kind in Kind
    }
    since = controls["at"][0] if len(controls) else 0.0
    recent = labels[labels["at"] >= since]
    pairs = int((recent["is_judged"] == 1).sum()) + unreadable[Kind.PAIR]
    own = int((recent["control"] <= Outcome.REJECTED).sum()) + unreadable[Kind.OWN]
    known = int((controls["kind"] <= Kind.INJECTED).sum())
    lost, asked = sum(unreadable.values()), pairs + own + known
    if asked >= _LEAST_ASKED and lost > _MOST_UNREADABLE * asked:
        return f"{lost / asked:.0%} of the judge's replies are neither ACCEPT nor REJECT"
    if min(pairs, own) < 2 * _LEAST_ASKED:
        return None
    of_pairs = lower_limit(unreadable[Kind.PAIR], pairs, 0.995)
    if of_pairs > rate_upper_limit(unreadable[Kind.OWN], own, 0.995):
        return (
            "the judge's replies are unreadable more often for cached answers than for fresh ones"
        )
    return None
