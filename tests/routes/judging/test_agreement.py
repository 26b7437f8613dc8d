"""When two answers count as the same; with the real encoder."""

import numpy as np
import pytest

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.routes.judging.agreement import SENSITIVITY, Comparer


@pytest.fixture(scope="module")
def comparer(installed):
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    encoder = OnnxEncoder(installed.graph)

    async def embed(texts):
        ids = tokenizer.encode(texts)
        return np.concatenate([encoder.encode(np.array([one], np.int64)) for one in ids])

    return Comparer(embed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", " paris"),
        ("**Open** the page.", "Open the page"),
        (
            "To reset your password, open the settings page and choose Reset.",
            "To reset your password, open the settings page and then choose Reset.",
        ),
        ("A cache keeps answers. " * 300, "a cache keeps answers! " * 300),
    ],
)
async def test_answers_that_say_the_same_agree(comparer, one, other):
    assert await comparer.agree(one, other)
    assert await comparer.agree(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It opened in 1998.", "It opened in 1999."),
        ("You can pay by card.", "You cannot pay by card."),
        ("Run `ls`.", "Run `rm`."),
        ("The train goes from Rome to Milan.", "The train goes from Milan to Rome."),
        ("The capital is Vienna.", "The capital is Canberra."),
        ("Yes", "No"),
        ("answer of group 17", "answer of group 23"),
        ("", "Something"),
        (
            "A cache keeps answers. " * 300 + "It is fast.",
            "A cache keeps answers. " * 300 + "Bananas are yellow fruit from the tropics.",
        ),
    ],
)
async def test_answers_that_differ_in_what_matters_do_not(comparer, one, other):
    assert not await comparer.agree(one, other)
    assert not await comparer.agree(other, one)


@pytest.mark.parametrize("name", ["pairs_negation_dev", "pairs_paws_dev", "pairs_qqp_dev"])
async def test_of_different_texts_as_many_are_told_apart_as_is_reckoned_with(
    comparer, shared_rows, name
):
    pairs = [row for row in shared_rows(f"{name}.jsonl") if row["label"] == 0][:400]
    told_apart = [not await comparer.agree(row["a"], row["b"]) for row in pairs]

    assert np.mean(told_apart) >= SENSITIVITY - 0.02  # of a sample
