import json

import pytest

from asym_lightning.data.tables.text_table import read_text_table, text_table_parts


def test_tsv_keeps_quotes_and_odd_characters_as_data(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('\ufeffsentence\tlabel\n"Yes, he said.\t1\nOne\x85two\u2028three\rfour "\t0\r\n', newline="")
    table = read_text_table(path)
    assert table.columns == {"sentence": ['"Yes, he said.', 'One\x85two\u2028three\rfour "'], "label": ["1", "0"]}


def test_csv_quotes_hold_commas_and_newlines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"a, b\nc",1\nd,0\n')
    table = read_text_table(path)
    assert table.columns == {"text": ["a, b\nc", "d"], "label": ["1", "0"]}
    assert table.where(1) == f"{path}, line 4"


def test_jsonl_and_parquet_give_the_same_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text": ["a", "b"], "label": [1, 0]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read_text_table(tmp_path / "a.jsonl").columns == columns
    assert read_text_table(tmp_path / "a.parquet").columns == columns


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "text\tlabel\na\t1\nb\n", r"a\.tsv, line 3: there are 1 cells where 2 are expected \(text, label\)"),
        ("a.csv", 'text,label\na,1\n"b,0\n', r"a\.csv, line 3: this cannot be read as csv"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl, line 2: this cannot be read \(JSON error"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', r"a\.jsonl, line 2: this is not a JSON object"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"txt": "b"}\n',
            r"a\.jsonl, line 2: the keys are txt, but text in the rows before",
        ),
        ("a.tsv", b"text\tlabel\na\t1\ncaf\xe9\t1\n", r"a\.tsv, line 3: .* \(not UTF-8: byte 0xe9 at position 3\)"),
        ("a.csv", b"text,label\ncaf\xe9,1\n", r"a\.csv, line 2: .* \(not UTF-8: byte 0xe9 at position 3\)"),
        ("a.jsonl", b'{"text": "\xe9"}\n', r"a\.jsonl, line 1: .* \(not UTF-8: byte 0xe9 at position 10\)"),
        ("a.parquet", "nonsense", r"a\.parquet cannot be read as parquet"),
        ("a.xlsx", "nonsense", r"a\.xlsx' is none of \.csv, \.tsv, \.jsonl, \.parquet"),
    ],
)
def test_row_that_cannot_be_read_is_named_by_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_text_table(tmp_path / name)


def test_bad_rows_are_left_out_only_when_asked_and_counted(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\na\t1\nb\nc\t0\n")
    with pytest.warns(UserWarning, match="1 rows that cannot be read were left out"):
        table = read_text_table(path, skip_bad_rows=True)
    assert table.columns["text"] == ["a", "c"]
    assert table.where(1).endswith("line 4")


def test_missing_column_and_file_are_named(tmp_path):
    (tmp_path / "a.tsv").write_text("sentence\tlabel\na\t1\n")
    with pytest.raises(ValueError, match=r"has no column 'sentense': did you mean sentence\?"):
        read_text_table(tmp_path / "a.tsv").column("sentense")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.tsv"):
        read_text_table(tmp_path / "b.tsv")


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_parts_are_the_table_with_the_places_of_its_rows(tmp_path, suffix, count):
    path = tmp_path / f"t.{suffix}"
    rows = [{"text": f"text {number}", "label": number} for number in range(count)]
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema([("text", pyarrow.string()), ("label", pyarrow.int64())])
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows))
    whole = read_text_table(path)
    for parts in (list(text_table_parts(path, num_rows=2)), list(whole.parts(2))):
        assert [len(part) for part in parts] == [2] * (count // 2) + ([count % 2] if count % 2 or not count else [])
        places = [part.where(row) for part in parts for row in range(len(part))]
        assert places == [whole.where(row) for row in range(count)]
        assert all(part.columns.keys() == whole.columns.keys() for part in parts)
        for name, values in whole.columns.items():
            assert [value for part in parts for value in part.columns[name]] == values
