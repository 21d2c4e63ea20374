import pytest

from asym_lightning.core.norms_file import STATISTICS, NormsFile, read_norms


def written(path, steps):
    file = NormsFile(path)
    for step in steps:
        row = {name: step + number / 8 for number, name in enumerate(STATISTICS)}
        file.append(step, step // 10, {"0.all": row, "total": row}, {"0.all": [2.0, 0.5]})
    return file


def test_rows_come_back_as_they_were_written(tmp_path):
    written(tmp_path / "new" / "norms.csv", [10])
    row, total = read_norms(tmp_path / "new" / "norms.csv")
    assert (row["step"], row["epoch"], row["adapter"], row["singular_values"]) == (10, 1, "0.all", [2.0, 0.5])
    assert [row[name] for name in STATISTICS] == [10 + number / 8 for number in range(len(STATISTICS))]
    assert (total["adapter"], total["singular_values"]) == ("total", [])


def test_a_resumed_run_has_no_rows_of_a_lost_future(tmp_path):
    file = written(tmp_path / "norms.csv", [10, 20, 30])
    file.drop_rows_after(20)
    assert [row["step"] for row in read_norms(tmp_path / "norms.csv")] == [10, 10, 20, 20]
    assert [path.name for path in tmp_path.iterdir()] == ["norms.csv"]


def test_a_row_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "norms.csv"
    file = written(path, [10, 20])
    path.write_text(path.read_text()[:-40])
    assert [(row["step"], row["adapter"]) for row in read_norms(path)] == [(10, "0.all"), (10, "total"), (20, "0.all")]
    file.drop_rows_after(20)
    assert len(path.read_text().splitlines()) == 4


def test_a_run_without_the_file_has_no_rows(tmp_path):
    assert list(read_norms(tmp_path / "norms.csv")) == []


def test_a_disk_that_fails_is_warned_of_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="can't be written .* training goes on without it") as warned:
        written(tmp_path / "file" / "norms.csv", [10, 20])
    assert len(warned) == 1
