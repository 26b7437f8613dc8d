"""Texts: what each is is known beforehand."""

from collections import Counter

import pytest

from cacheproxy.evaluation.traffic import Texts
from loadtest.traffic.scenario import Mix
from loadtest.traffic.texts import TextSource, text_of_length

MIX = Mix(repeat=0.6, paraphrase=0.1, typo=0.1, unseen=0.2)
WORDS = (6, 12)


def draw(source, count, mix=MIX, per_s=100.0):
    return [source.draw(mix, WORDS, i / per_s, remember=True) for i in range(count)]


def known(texts=200, files=None):
    source = TextSource(1, files)
    for _ in range(texts):
        source.remember(source.draw(Mix(unseen=1.0), WORDS, 0, remember=False).text, 0)
    return source


def test_kinds_come_in_their_shares():
    counts = Counter(drawn.kind for drawn in draw(known(), 10_000))

    shares = {kind: count / 10_000 for kind, count in counts.items()}
    assert shares == pytest.approx(
        {"repeat": 0.6, "paraphrase": 0.1, "typo": 0.1, "unseen": 0.2}, abs=0.02
    )


def test_a_repeat_was_asked_for_a_second_ago_or_more_and_nothing_else_was_asked_for_at_all():
    source, per_s = known(0), 100.0
    asked_at: dict[str, int] = {}
    for i, drawn in enumerate(draw(source, 5_000, per_s=per_s)):
        if drawn.kind == "repeat":
            assert (i - asked_at[drawn.text]) / per_s >= 1.0
        else:
            assert drawn.text not in asked_at, drawn.kind
            asked_at[drawn.text] = i


def test_repeats_follow_zipfs_law():
    counts = Counter(drawn.text for drawn in draw(known(), 50_000, Mix(repeat=1.0)))

    ranked = [count for _, count in counts.most_common()]
    assert ranked[0] / ranked[99] == pytest.approx(100**0.8, rel=0.4)


def test_the_same_seed_draws_the_same_texts():
    assert draw(known(), 500) == draw(known(), 500)


def test_paraphrases_come_from_clusters_of_which_one_text_is_unseen():
    texts = tuple(f"question {i} in wording {j}" for i in range(50) for j in range(4))
    clusters = {number: str(number // 4) for number in range(len(texts))}
    source = known(50, files=Texts(texts, clusters=clusters))

    drawn = draw(source, 100, Mix(paraphrase=1.0))

    of_rows = [one.text for one in drawn if one.text in set(texts)]
    assert all(one.kind == "paraphrase" for one in drawn)
    assert len(of_rows) == len(set(of_rows)) > 30


def test_when_files_have_no_more_texts_further_ones_are_made_up_of_their_words():
    source = TextSource(1, Texts(("one two", "three four")))

    texts = [drawn.text for drawn in draw(source, 20, Mix(unseen=1.0))]

    assert set(texts[:2]) == {"one two", "three four"}
    assert len(set(texts)) == 20
    assert {word for text in texts for word in text.split()} == {"one", "two", "three", "four"}


@pytest.mark.parametrize("characters", [1, 2, 17, 500])
def test_a_made_up_text_has_its_length_and_is_the_same_for_a_seed(characters):
    text = text_of_length("a hash", characters)

    assert len(text) == len(text.strip()) == characters
    assert text == text_of_length("a hash", characters)
    assert characters < 17 or text != text_of_length("another", characters)
