import numpy as np
import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.journal import Journal, Work
from cacheproxy.ingest.rows import Embedded, Row

WORK = Work("model", "f", "text", None, None, None)


def answers(start: int, count: int) -> list[Embedded]:
    vectors = np.random.default_rng(start).normal(size=(count, 3)).astype(np.float32)
    rows = [Row(start + i, start + i, "file", "text") for i in range(count)]
    done = [Embedded(row, vector) for row, vector in zip(rows, vectors, strict=True)]
    return [*done[:-1], Embedded(done[-1].row, None, "no text")]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "journal", WORK)
    for start in (0, 10, 20):
        journal.append(answers(start, 10), start)
    journal.close()
    return journal.path


def test_a_journal_is_read_as_it_was_written(path):
    journal = Journal(path, WORK)

    assert (journal.rows, journal.refused, journal.checksum) == (30, 3, 20)
    found = [each for done in journal.done() for each in done.answers()]
    expected = [one for start in (0, 10, 20) for one in answers(start, 10)]
    assert [named for named, *_ in found] == list(range(30))
    for (_, vector, _, reason), one in zip(found, expected, strict=True):
        assert reason == one.reason
        assert (vector is None) == (one.vector is None)
        assert vector is None or vector.tobytes() == one.vector.tobytes()


def test_cut_anywhere_it_keeps_the_whole_frames_before_and_goes_on(path):
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 7), len(whole)]:
        path.write_bytes(whole[:size])
        journal = Journal(path, WORK)
        assert journal.rows in (0, 10, 20, 30)
        rows = journal.rows
        journal.append(answers(rows, 10), rows)
        journal.close()
        again = Journal(path, WORK)
        assert again.rows == rows + 10
        again.close()
    assert rows == 30


def test_a_flipped_bit_costs_the_rows_from_there_on(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)

    assert Journal(path, WORK).rows in (0, 10, 20)


def test_other_work_is_not_continued(path):
    with pytest.raises(ConfigError, match="another model"):
        Journal(path, Work("model", "other", "text", None, None, None))


def test_two_processes_do_not_work_on_one_output(path):
    first = Journal(path, WORK)
    with pytest.raises(ConfigError, match="another process"):
        Journal(path, WORK)
    first.close()
    Journal(path, WORK).close()
