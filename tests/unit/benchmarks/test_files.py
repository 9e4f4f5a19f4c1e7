"""The reader: formats, file faults as one-line InputErrors, row faults left to the caller."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.base.schema import content_id
from ray_app.benchmarks.base import pairwise_item
from ray_app.benchmarks.data_files import list_files
from ray_app.benchmarks.files import clean_text, read_numbered, read_rows
from ray_app.errors import InputError

ZSTD = pa.Codec("zstd").compress
REQUIRED = {"id": (str, int), "text": (str, list)}


def write(path: Path, data: str | bytes) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def fault(path: str, required: dict[str, object] = REQUIRED) -> str:
    with pytest.raises(InputError) as caught:
        list(read_rows(path, required))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "a"}, {"id": "2", "text": "ü\u2028b"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    paths = [
        write(tmp_path / "rows.jsonl", lines),
        write(tmp_path / "blank.jsonl", "\n" + lines.replace("\n", "\r\n\n") + "\n\n"),
        write(tmp_path / "bom.jsonl", b"\xef\xbb\xbf" + lines.encode()),
        write(tmp_path / "array.json", json.dumps(rows, indent=2)),
        write(tmp_path / "lines.json", lines),
        write(tmp_path / "rows.jsonl.gz", gzip.compress(lines.encode())),
        write(tmp_path / "rows.jsonl.bz2", bz2.compress(lines.encode())),
        write(tmp_path / "rows.jsonl.xz", lzma.compress(lines.encode())),
        write(tmp_path / "rows.jsonl.zst", ZSTD(lines.encode(), asbytes=True)),
        write(
            tmp_path / "ROWS.JSONL.ZST", ZSTD(lines[:5].encode(), asbytes=True) + ZSTD(lines[5:].encode(), asbytes=True)
        ),
        str(tmp_path / "rows.parquet"),
    ]
    for path in paths:
        assert list(read_rows(path, REQUIRED)) == rows, path


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".gz", gzip.compress(b"", mtime=0)[:10] + b"\x07"),  # a block of the type that is none
        (".gz", gzip.compress(b'{"id": 1, "text": "a"}', mtime=0)[:-9]),
        (".bz2", bz2.compress(b'{"id": 1, "text": "a"}')[:20] + b"0000"),
        (".xz", lzma.compress(b'{"id": 1, "text": "a"}')[:30] + bytes(40)),
        (".xz", b"no xz"),
        (".zst", ZSTD(b'{"id": 1, "text": "a"}', asbytes=True)[:-4]),
        (".zst", b"no zst"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else str(len(value))
    ),  # the bytes of a compressor are no name: gzip's hold the time
)
def test_a_damaged_compression_is_one_line_that_names_the_file(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = write(tmp_path / f"rows.jsonl{suffix}", data)
    assert fault(path).startswith(f"{path} cannot be read: ")


def test_a_folder_is_read_in_name_order(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", '{"id": 2, "text": "b"}')
    write(tmp_path / "a.jsonl", '{"id": 1, "text": "a"}')
    write(tmp_path / "notes.txt", "not data")
    assert [row["id"] for row in read_rows(str(tmp_path), REQUIRED)] == [1, 2]
    assert len(list_files(str(tmp_path))) == 2


def test_an_fsspec_uri_is_read() -> None:
    import fsspec

    with fsspec.open("memory://bench/rows.jsonl", "w") as file:
        file.write('{"id": 1, "text": "a"}\n')
    assert list(read_rows("memory://bench/rows.jsonl", REQUIRED)) == [{"id": 1, "text": "a"}]
    assert list(read_rows("memory://bench", REQUIRED)) == [{"id": 1, "text": "a"}]


def test_optional_none_passes_other_columns_and_a_mapping_drops_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": 1, "text": "a", "more": {"x": 1}, "n": 3}')
    assert next(read_rows(path, REQUIRED))["more"] == {"x": 1}
    assert next(read_rows(path, REQUIRED, {"n": int})) == {"id": 1, "text": "a", "n": 3}
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["1"], "text": ["a"], "n": [3], "more": [1]}), parquet)
    assert next(read_rows(str(parquet), REQUIRED, {"n": int})) == {"id": "1", "text": "a", "n": 3}


@pytest.mark.parametrize(
    ("data", "needles"),
    [
        ('{"id": 1, "text": "a"}\n{"id": 2, "text": \n', ["bad.jsonl line 2 column 18 is not JSON: Expecting value"]),
        ('{"id": 1, "text": "a"}\n[1, 2]\n', ["line 2", "not a JSON object"]),
        ('{"id": 1, "text": "a"}\n{"id": 2}\n', ["line 2", "no column 'text'"]),
        ('{"id": 1, "text": 5}\n', ["line 1", "'text'", "int", "text or a list"]),
        ('{"id": true, "text": "a"}\n', ["line 1", "'id'", "bool"]),
        (b'{"id": 1, "text": "a"}\n{"id": 2, "text": "\xff\xfe"}\n', ["line 2", "not UTF-8"]),
        ("", ["holds no rows"]),
        ("\n\n", ["holds no rows"]),
        ('{"id": ' + "9" * 5000 + ', "text": "a"}', ["line 1", "not JSON"]),
        ("[" * 200_000, ["not JSON"]),
        ('{"id": 1, "text": ' + "[" * 900 + "]" * 900 + "}", ["line 1 is not JSON: it is nested more than 100 deep"]),
    ],
)
def test_file_faults_name_line_and_column(tmp_path: Path, data: str | bytes, needles: list[str]) -> None:
    message = fault(write(tmp_path / "bad.jsonl", data))
    assert "bad.jsonl" in message
    assert all(needle in message for needle in needles), message


def test_faults_of_an_array_name_their_place(tmp_path: Path) -> None:
    assert "element 2 is not a JSON object" in fault(write(tmp_path / "a.json", '[{"id": 1, "text": "a"}, 3]'))
    assert "line 2 column 8" in fault(write(tmp_path / "b.json", '[{"id": 1, "text": "a"},\n {"id" 2}]'))
    assert "line 4 column 8" in fault(write(tmp_path / "c.json", '\n\n[{"id": 1, "text": "a"},\n {"id" 2}]'))
    assert "line 2 is not UTF-8 (byte 3)" in fault(write(tmp_path / "d.json", b'[{"id": 1},\n {\xff}]'))


def test_a_missing_file_an_unknown_suffix_and_an_empty_folder(tmp_path: Path) -> None:
    assert "does not exist" in fault(str(tmp_path / "none.jsonl"))
    assert "is none of" in fault(write(tmp_path / "rows.csv", "id,text"))
    (tmp_path / "empty").mkdir()
    assert "holds no" in fault(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="cannot be read"):
        read_rows("nosuchscheme://x/rows.jsonl", REQUIRED)


def test_parquet_faults(tmp_path: Path) -> None:
    path = str(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"id": ["1"], "text": [5.0]}), path)
    assert "column 'text' holds double" in fault(path)
    pq.write_table(pa.table({"id": ["1"]}), path)
    assert "no column 'text'" in fault(path)
    pq.write_table(pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), path)
    assert "holds no rows" in fault(path)
    assert "cannot be read" in fault(write(tmp_path / "fake.parquet", "this is no parquet file"))
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"id": ["1"], "text": broken}), path)
    assert "rows 1 to 1 column 'text' is not UTF-8" in fault(path)


def test_a_parquet_text_is_text_or_a_list_of_messages(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    for bad in ([[1, 2]], [[[1]]], [[1.5]]):
        pq.write_table(pa.table({"id": ["1"], "text": bad}), path)
        message = fault(path)
        assert "a.parquet column 'text' holds list<" in message
        assert message.endswith("not text or a list of messages")
    for good in ([[{"role": "user", "content": "x"}]], [["x"]], [[]]):
        pq.write_table(pa.table({"id": ["1"], "text": good}), path)
        assert [row["text"] for row in read_rows(path, REQUIRED)] == good
    pq.write_table(pa.table({"id": ["1"], "ratings": [[1, 2]]}), path)
    assert next(read_rows(path, {"ratings": list}))["ratings"] == [1, 2]


def test_null_and_nan_are_none_and_dictionaries_are_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": 1, "text": NaN}\n{"id": null, "text": null}')
    assert [row["text"] for row in read_rows(path, REQUIRED)] == [None, None]
    parquet = str(tmp_path / "a.parquet")
    text = pa.array(["x", None]).dictionary_encode()
    pq.write_table(pa.table({"id": ["1", "2"], "text": text}), parquet)
    assert [row["text"] for row in read_rows(parquet, REQUIRED)] == ["x", None]


def test_very_long_texts_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"id": 1, "text": "x" * 200_000}))
    assert len(next(read_rows(path, REQUIRED))["text"]) == 200_000


def test_a_row_knows_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\n{"id": 1, "text": "a"}')
    assert next(read_numbered(path, REQUIRED)).where == f"{path} line 2"


def test_texts_lose_control_characters_and_lone_surrogates(tmp_path: Path) -> None:
    assert clean_text("a\x1eb\x00\tc\n") == "ab\tc\n"
    assert clean_text("a\ud83d b \ud83d\ude00") == "a\ufffd b \U0001f600"
    path = write(tmp_path / "a.jsonl", '{"id": 1, "text": [{"role": "user", "content": "\\u0000\\ud83dx"}]}')
    assert next(read_rows(path, REQUIRED))["text"] == [{"role": "user", "content": "\ufffdx"}]


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_survives_as_encodable_text(texts: list[str]) -> None:
    for text in texts:
        cleaned = clean_text(text)
        cleaned.encode("utf-8")
        assert clean_text(cleaned) == cleaned


@given(st.text(st.characters(categories=("L", "N", "P", "Zs", "S"))))
def test_ordinary_text_is_untouched(text: str) -> None:
    assert clean_text(text) == text


def test_what_json_lacks_is_text(tmp_path: Path) -> None:
    """Messages with a time beside them, as chat logs have them: the row is read, and hashed, like any other."""
    path = str(tmp_path / "a.parquet")
    noon = datetime.datetime(2024, 1, 1, 12)
    rows = [
        {"id": str(i), "text": [{"role": "user", "content": "Hi", "at": noon + datetime.timedelta(i)}], "raw": b"\xff"}
        for i in range(2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = list(read_rows(path, REQUIRED))
    assert found[0]["text"] == [{"role": "user", "content": "Hi", "at": "2024-01-01 12:00:00"}]
    items = [pairwise_item(row["id"], "", row["text"], ("x", "y"), "A") for row in found]
    assert items[0].group == items[1].group == content_id([{"role": "user", "content": "Hi"}])
    times = pa.array([2**50], pa.timestamp("ms"))  # no type of Python holds it
    pq.write_table(pa.table({"id": ["1"], "text": ["x"], "at": times}), path)
    assert "rows 1 to 1 column 'at' cannot be read" in fault(path)
    assert next(read_rows(path, REQUIRED, {})) == {"id": "1", "text": "x"}


def test_files_about_the_data_are_none_of_it(tmp_path: Path) -> None:
    """Hidden files, checkpoints of notebooks, and what `datasets` writes beside its own."""
    folder = tmp_path / "rows"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "_delta_log").mkdir()
    (folder / "part").mkdir()
    row = '{"id": 1, "text": "a"}\n'
    for name in ("part/0.jsonl", ".hidden.jsonl", ".ipynb_checkpoints/0.jsonl", "_delta_log/0.json", "_SUCCESS.json"):
        (folder / name).write_text(row)
    (folder / "dataset_infos.json").write_text('{"default": {}}')
    assert list_files(str(folder)) == [str(folder / "part" / "0.jsonl")]
    assert list_files(str(folder / ".hidden.jsonl")), "a file that is named is meant"
    hidden = tmp_path / ".cache" / "rows"
    hidden.mkdir(parents=True)
    (hidden / "0.jsonl").write_text(row)
    assert list_files(str(hidden)) == [str(hidden / "0.jsonl")], "so is a folder"
