"""The file of moved entries: whatever was cut or altered is noticed, and told by its record."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.errors import ConfigError
from cacheproxy.moving.file import (
    Head,
    MovedEntry,
    MovedEvidence,
    MovedPurge,
    MoveReader,
    MoveWriter,
)

PARTS = [
    *(
        MovedEntry(bytes([i]) * 32, "a" * 32, "b" * 16, "", b"record" * i, 4e9, ["c" * 32], b"", i)
        for i in range(5)
    ),
    MovedEvidence("model", "0.9", "a" * 32, b"state"),
    MovedPurge(7, "d" * 32, None, b"k" * 32),
]


def written() -> tuple[bytes, list[int]]:
    """Return a file's bytes, and where each of its records begins."""
    file = io.BytesIO()
    writer = MoveWriter(file, Head("0", 1.0, False))
    starts = [8]
    for part in PARTS:
        starts.append(file.tell())
        writer.write(part)
    starts.append(file.tell())
    writer.end()
    return file.getvalue(), starts


WHOLE, STARTS = written()


def record_at(place: int) -> int:
    return sum(start <= place for start in STARTS)


def read(path, data: bytes) -> list:
    path.write_bytes(data)
    with MoveReader(path) as reader:
        return list(reader.parts())


def refusal(path, data: bytes) -> int:
    """Return the number of the record with which a file is refused."""
    with pytest.raises(ConfigError) as error:
        read(path, data)
    return int(re.search(r"record (\d+) is", str(error.value)).group(1))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("moved") / "file"


def test_what_was_written_is_read(path):
    assert read(path, WHOLE) == [Head("0", 1.0, False), *PARTS]


@settings(deadline=None)
@given(st.integers(len("CPMOVE1\n"), len(WHOLE) - 1))
def test_a_file_that_was_cut_is_refused_at_the_record_that_was_cut(path, length):
    assert refusal(path, WHOLE[:length]) == record_at(length)


@settings(deadline=None)
@given(st.integers(len("CPMOVE1\n"), len(WHOLE) - 1), st.integers(1, 255))
def test_an_altered_byte_is_refused_at_its_record(path, place, change):
    altered = WHOLE[:place] + bytes([WHOLE[place] ^ change]) + WHOLE[place + 1 :]

    assert refusal(path, altered) == record_at(place)


def test_a_record_that_is_missing_doubled_or_moved_is_refused_where_it_stands(path):
    one, two, three = (slice(STARTS[i], STARTS[i + 1]) for i in (2, 3, 4))
    before, after = WHOLE[: one.start], WHOLE[three.stop :]

    assert refusal(path, before + WHOLE[two] + WHOLE[three] + after) == 3
    assert refusal(path, before + WHOLE[one] * 2 + WHOLE[two] + WHOLE[three] + after) == 4
    assert refusal(path, before + WHOLE[two] + WHOLE[one] + WHOLE[three] + after) == 3


def test_what_follows_the_end_is_refused(path):
    assert refusal(path, WHOLE + b"\0") == len(PARTS) + 2


@pytest.mark.parametrize("data", [b"", b"CPMOVE", b'{"text": "a"}\n', b"CPMOVE2\n" + WHOLE[8:]])
def test_another_file_is_refused_by_name(path, data):
    with pytest.raises(ConfigError, match="not made by cacheproxy export"):
        read(path, data)
