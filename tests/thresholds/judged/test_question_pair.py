"""Features of a pair of questions: cheap, finite, and blind to what does not matter."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.thresholds.judged.evidence import FEATURES
from cacheproxy.thresholds.judged.question_pair import features_of, rarity_of, take_apart

RARITY = rarity_of({"the": 0, "how": 1, "is": 2, "capital": 50, "##ing": 3})


def features(one, other, cosine=0.9):
    return features_of(take_apart(one, RARITY), take_apart(other, RARITY), cosine)


@given(one=st.text(max_size=200), other=st.text(max_size=200), cosine=st.floats(-1, 1.001))
def test_any_two_texts_have_finite_features(one, other, cosine):
    found = features(one, other, cosine)

    assert found.shape == (FEATURES,)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1_000


def test_the_first_feature_is_the_cosine():
    assert features("a", "b", 0.75)[0] == np.float32(0.75)


def test_slips_courtesy_and_plurals_do_not_count_as_other_words():
    for other in (
        "how tall is the towwer",
        "How tall is hte tower please",
        "How tall is the towers",
    ):
        assert features("How tall is that tower?", other.replace("the ", "that "))[2] <= 0.5
        assert features("How tall is the tower?", other.replace("hte", "the"))[2] == 0


def test_another_name_counts_as_rare_and_as_a_name():
    pair = features("What is the capital of Chad?", "What is the capital of Mali?")

    assert pair[5] == 1
    assert pair[11] == 2


def test_order_matters():
    assert features("from Oslo to Rome", "from Oslo to Rome")[10] == 1
    assert features("from Oslo to Rome", "from Rome to Oslo")[10] < 1


def test_frequent_words_are_less_rare():
    assert RARITY("the") < RARITY("capital") < RARITY("unheard") == 1
