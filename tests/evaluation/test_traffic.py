from collections import Counter

import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.traffic import Texts, all_requests, draw_requests, joined, read_texts

TEXTS = Texts(tuple(f"what is the capital of country number {number}?" for number in range(200)))


def test_texts_are_read_from_json_and_from_plain_lines(tmp_path):
    file = tmp_path / "log"
    file.write_text('{"query": "one"}\n"two"\nthree\n\n{not json\n')

    found = read_texts([file])
    assert found.texts == ("one", "two", "three", "{not json")
    assert not found.is_labelled


def test_pairs_and_groups_say_which_texts_differ(tmp_path):
    pairs, groups = tmp_path / "pairs", tmp_path / "groups"
    pairs.write_text(
        '{"a": "hot", "b": "cold", "label": 0}\n{"a": "hot", "b": "warm", "label": 1}\n'
    )
    groups.write_text('{"text": "a", "cluster": 1}\n{"text": "b", "cluster": 1}\n{"text": "c"}\n')
    groups.write_text(groups.read_text() + '{"text": "d", "label": "other"}\n')
    found = read_texts([pairs, groups])

    assert found.texts == ("hot", "cold", "hot", "warm", "a", "b", "c", "d")
    differing = {(one, other) for one in range(8) for other in range(8) if found.differ(one, other)}
    assert differing == {(0, 1), (1, 0), (4, 7), (7, 4), (5, 7), (7, 5)}
    later = joined(Texts(("x",)), found)
    assert later.differ(1, 2)
    assert later.differ(5, 8)
    assert not later.differ(0, 1)


def test_a_log_is_replayed_in_its_order_and_repeats_share_their_source():
    requests = all_requests(Texts(("one", "two", "one")))
    assert [tuple(request) for request in requests] == [("one", 0), ("two", 1), ("one", 0)]


@pytest.mark.parametrize("content", ["", '{"other": 1}\n', "[1]\n" * 0])
def test_a_file_without_texts_is_told(tmp_path, content):
    file = tmp_path / "log"
    file.write_text(content)

    with pytest.raises(ConfigError):
        read_texts([file])
    with pytest.raises(ConfigError):
        read_texts([tmp_path / "missing"])


def test_requests_are_the_same_for_a_seed_and_other_ones_for_another():
    assert draw_requests(TEXTS, 500, 1) == draw_requests(TEXTS, 500, 1)
    assert draw_requests(TEXTS, 500, 1) != draw_requests(TEXTS, 500, 2)


def test_few_texts_come_often_and_a_quarter_comes_changed():
    requests = draw_requests(TEXTS, 10_000, 3)
    original = Counter(
        request.text for request in requests if request.text == TEXTS.texts[request.source]
    )

    assert 0.70 <= original.total() / len(requests) <= 0.80
    assert original.most_common(1)[0][1] > 10 * min(original.values())
