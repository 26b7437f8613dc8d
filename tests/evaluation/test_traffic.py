from collections import Counter

import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.traffic import draw_requests, read_texts

TEXTS = [f"what is the capital of country number {number}?" for number in range(200)]


def test_texts_are_read_from_json_and_from_plain_lines(tmp_path):
    file = tmp_path / "log"
    file.write_text('{"query": "one"}\n"two"\nthree\n\n{not json\n')

    assert read_texts([file]) == ["one", "two", "three", "{not json"]


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
    original = Counter(text for text in requests if text in set(TEXTS))

    assert 0.70 <= original.total() / len(requests) <= 0.80
    assert original.most_common(1)[0][1] > 10 * min(original.values())
