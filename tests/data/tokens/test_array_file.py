"""Arrays that grow on disk and are mapped from one file."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from asym_lightning.data.tokens.array_file import GrowingArrays, map_arrays


@pytest.fixture
def path(tmp_path):
    with GrowingArrays(tmp_path) as arrays, (tmp_path / "a.safetensors").open("wb") as file:
        arrays.append("bytes", np.array([1, 2, 3], np.uint8))
        arrays.append("ends", np.array([7], np.int64))
        arrays.append("scores", np.array([], np.float32))
        arrays.append("ends", np.array([2**40, -1]))
        assert arrays.count("ends") == 3 and arrays.count("others") == 0
        arrays.copy_to(file, {"facts": "{}"})
    return tmp_path / "a.safetensors"


def test_parts_follow_each_other_and_other_readers_of_the_format_agree(path):
    arrays, metadata = map_arrays(path)
    assert {name: (array.dtype, array.tolist()) for name, array in arrays.items()} == {
        "bytes": (np.uint8, [1, 2, 3]), "ends": (np.int64, [7, 2**40, -1]), "scores": (np.float32, []),
    }  # fmt: skip
    assert metadata == {"facts": "{}"}
    assert {name: array.tolist() for name, array in load_file(path).items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_arrays_are_mapped_aligned_and_not_for_writing(path):
    for array in map_arrays(path)[0].values():
        assert array.flags.aligned and not array.flags.writeable and not array.flags.owndata


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_file_that_is_cut_short_is_an_error(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError):
        map_arrays(path)


def test_only_the_file_is_left(path):
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
