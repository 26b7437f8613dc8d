"""Who gets the canary: a share of the namespaces, always the same ones."""

import pytest

from cacheproxy.api.canaries import Canaries, share_of
from cacheproxy.errors import ConfigError
from cacheproxy.keys import Namespace
from cacheproxy.settings.sections import CanarySettings
from cacheproxy.telemetry.metrics import Metrics

KINDS = [{"large": "large", "sentence/large": "large", "small": "small"}, {"ranker": "ranker"}]
NAMESPACES = [Namespace("acme", f"customer {number}").id for number in range(2_000)]


@pytest.fixture
def canaries():
    return Canaries(Metrics().rollout, KINDS, has_chat=True)


def with_canary(canaries: Canaries, percent: float, name: str = "large") -> set[str]:
    canaries.prepare({name: CanarySettings(model="small", percent=percent)})()
    return {one for one in NAMESPACES if canaries.choose("large", one, None).model == "small"}


@pytest.mark.parametrize("percent", [0, 1, 25, 100])
def test_as_many_namespaces_get_it_as_the_share_says(canaries, percent):
    chosen = with_canary(canaries, percent)

    assert len(chosen) == pytest.approx(20 * percent, abs=60)
    assert percent not in (0, 100) or len(chosen) == 20 * percent


def test_a_larger_share_keeps_those_that_have_it(canaries):
    shares = [with_canary(canaries, percent) for percent in (5, 10, 40)]

    assert shares[0] < shares[1] < shares[2]


def test_another_model_has_other_namespaces():
    assert {share_of("a", one) < 50 for one in NAMESPACES if share_of("b", one) < 50} == {
        True,
        False,
    }


def test_a_request_may_choose_for_itself_and_a_model_without_a_canary_has_none(canaries):
    with_canary(canaries, 100, name="sentence/large")

    assert canaries.choose("large", NAMESPACES[0], "stable").model == "large"
    with_canary(canaries, 0)
    assert canaries.choose("large", NAMESPACES[0], "canary").model == "small"
    assert canaries.choose("small", NAMESPACES[0], "canary") is None


@pytest.mark.parametrize(
    ("name", "model", "told"),
    [
        ("large", "ranker", "both for embeddings or both for scores"),
        ("large", "gpt", "both for embeddings or both for scores"),
        ("gpt", "large", "both for embeddings or both for scores"),
        ("large", "sentence/large", "the same model"),
        ("gpt", "gpt", "the same model"),
    ],
)
def test_a_canary_that_cannot_stand_in_is_refused_and_nothing_changes(canaries, name, model, told):
    before = with_canary(canaries, 30)

    with pytest.raises(ConfigError, match=told):
        canaries.prepare({name: CanarySettings(model=model, percent=50)})

    assert {
        one for one in NAMESPACES if canaries.choose("large", one, None).model == "small"
    } == before


def test_endpoints_forget_when_canaries_change_and_only_then(canaries):
    forgotten = []
    canaries.forget_by(lambda: forgotten.append(1))

    for percent in (10, 10, 20):
        with_canary(canaries, percent)

    assert len(forgotten) == 2
