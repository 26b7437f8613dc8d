import json

import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.ingest.readers import Columns, Position, read_rows


def read(path, columns=None, form=None, position=None):
    return list(read_rows([str(path)], columns or Columns(), form, position or Position()))


def test_lines_are_texts_and_blank_ones_are_none(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(
        "one\r\n\n  \nzwölf\n\xff\nlast".encode("latin-1").replace(b"\xf6", b"\xc3\xb6")
    )

    rows = read(path)

    assert [(row.number, row.id, row.text) for row in rows] == [
        *((0, 0, "one"), (1, 1, "zwölf"), (2, 2, None), (3, 3, "last"))
    ]
    assert rows[2].reason == "the line is not UTF-8"


def test_json_lines_that_are_none_keep_their_row(tmp_path):
    path = tmp_path / "a.jsonl"
    given = [
        '{"text": "a", "k": "x"}',
        "{",
        "[1]",
        '{"k": 5}',
        '{"text": 7, "k": 6}',
        '{"text": "b"}',
    ]
    path.write_text("\n".join([*given, '{"text": "\\ud800", "k": 1}']))

    rows = read(path, Columns("text", "k"))

    assert [row.text for row in rows] == ["a", None, None, None, None, None, None]
    assert [row.id for row in rows] == ["x", 1, 2, "5", "6", 5, 6]
    assert all(row.reason for row in rows[1:])


def test_csv_has_quoted_line_ends_and_rows_of_another_length(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\n1,"two\nlines, here"\n2\n3,"\xff"\n4,end\n')

    rows = read(path, Columns("text", "id"))

    assert [(row.id, row.text) for row in rows] == [
        *(("1", "two\nlines, here"), (1, None), ("3", None), ("4", "end"))
    ]


def test_parquet_is_read_in_parts_with_its_ids(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [None if i == 1500 else f"text {i}" for i in range(3_000)]
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"n": range(3_000), "body": texts}), path)
    position = Position()

    rows = read(path, Columns("body", "n"), position=position)

    assert [row.text for row in rows] == texts
    assert rows[2_999].id == "2999"
    assert position.read == position.total == path.stat().st_size


def test_rows_are_counted_over_all_files(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    position = Position()

    rows = list(
        read_rows([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], Columns(), None, position)
    )

    assert [(row.number, row.text) for row in rows] == [(0, "a.jsonl"), (1, "b.jsonl")]
    assert position.read == position.total


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.bin", b"", "use --format"),
        ("a.csv", b"x,y\n1,2\n", "there is no column text"),
        ("a.parquet", b"PAR1 not", "a.parquet"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_before_any_work(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=said):
        read(tmp_path / name)


def test_a_file_that_is_missing_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "missing.txt")
