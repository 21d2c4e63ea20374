import os
import pickle

import numpy as np
import pytest

from asym_lightning.data.tokens.tokenized_rows import Ragged, Texts, TokenizedRows


@pytest.fixture
def rows():
    sequences = {"input_ids": Ragged.of([[5, 6], [7], []])}
    return TokenizedRows(
        sequences, {"labels": np.array([1, 0, 2])}, {"ids": Texts.of(["a", "b ö\ud800", ""])}, {"cut": 2}
    )


def test_rows_come_back_as_they_were_saved(rows, tmp_path):
    rows.save(tmp_path / "cache" / "rows.npz")
    loaded = TokenizedRows.load(tmp_path / "cache" / "rows.npz")
    assert loaded is not None and loaded.facts == {"cut": 2}
    for row in range(3):
        assert {name: np.asarray(value).tolist() for name, value in loaded[row].items()} == {
            name: np.asarray(value).tolist() for name, value in rows[row].items()
        }
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["rows.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half"])
def test_a_damaged_cache_is_none(content, tmp_path):
    assert TokenizedRows.load(tmp_path / "rows.npz") is None
    (tmp_path / "rows.npz").write_bytes(content)
    assert TokenizedRows.load(tmp_path / "rows.npz") is None


def test_what_a_killed_process_left_goes_after_a_day(rows, tmp_path):
    at_work, left = tmp_path / ".other.npz.0a1b2c3d.saving", tmp_path / ".other.npz.ffffffff.saving"
    for path in (at_work, left):
        path.touch()
    os.utime(left, (0, 0))
    rows.save(tmp_path / "rows.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == [at_work.name, "rows.npz"]


def test_parts_are_written_as_the_whole_is_and_their_facts_are_added(rows, tmp_path):
    more = TokenizedRows(
        {"input_ids": Ragged.of([[8, 9]])}, {"labels": np.array([3])}, {"ids": Texts.of(["c"])}, {"cut": 1}
    )
    written = TokenizedRows.write(tmp_path / "rows.npz", (part for part in (rows, more)))
    parts = [*(rows[row] for row in range(3)), more[0]]
    items = [{name: np.asarray(value).tolist() for name, value in item.items()} for item in parts]
    items[-1]["row"] = 3
    assert len(written) == 4 and written.facts == {"cut": 3}
    assert [{name: np.asarray(value).tolist() for name, value in written[row].items()} for row in range(4)] == items


def test_rows_of_a_file_go_to_other_processes_by_its_name(tmp_path):
    count = 10_000
    rows = TokenizedRows({"input_ids": Ragged.of([[row] * 5 for row in range(count)])}, {"labels": np.arange(count)})
    rows.save(tmp_path / "rows.npz")
    loaded = TokenizedRows.load(tmp_path / "rows.npz")
    sent = pickle.dumps(loaded)
    assert len(sent) < 1000 < len(pickle.dumps(rows))
    assert pickle.loads(sent)[7]["input_ids"].tolist() == [7] * 5
