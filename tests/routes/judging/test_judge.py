"""What a judge is told to do."""

from cacheproxy.routes.judging.judge import _TASKS
from cacheproxy.thresholds.judged.asking import MOST


def test_every_question_about_a_pair_has_words_of_its_own():
    assert len(set(_TASKS)) == MOST
