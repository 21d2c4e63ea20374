import sys

import pytest
import torch
from sklearn.datasets import load_digits

from asym_lightning.data import DigitsDataModule
from asym_lightning.data.images.digits import DigitsSplit, load_digits_splits, read_digits, rotate, take_balanced


def rows(images):
    """Each image as a hashable tuple."""
    return [tuple(image.flatten().tolist()) for image in images]


def test_digits_are_those_that_scikit_learn_loads():
    digits = load_digits()
    pixels, labels = read_digits()
    assert torch.equal(pixels, torch.as_tensor(digits.images, dtype=torch.float32))
    assert torch.equal(labels, torch.as_tensor(digits.target))


def test_splits_are_disjoint_and_cover_all_images():
    splits = load_digits_splits()
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 1197, "val": 200, "test": 400}
    images = [row for split in splits.values() for row in rows(split.images)]
    assert len(images) == 1797
    assert len(set(images)) == 1797  # no two digits are alike, so equal rows would be one image in two splits


def test_split_depends_on_the_seed_and_not_on_the_global_one():
    torch.manual_seed(1)
    first = load_digits_splits(seed=3)
    torch.manual_seed(2)
    second = load_digits_splits(seed=3)
    assert torch.equal(first["test"].images, second["test"].images)
    assert not torch.equal(first["test"].images, load_digits_splits(seed=4)["test"].images)


def test_training_and_test_angles_differ_where_asked():
    data = DigitsDataModule(angles=[180], test_angles=[0], num_train=None)
    data.setup("fit")
    splits = load_digits_splits()
    assert torch.equal(data.train_set.tensors[0], splits["train"].images.flip(-1, -2) * 2 - 1)
    assert torch.equal(data.val_set.tensors[0], splits["val"].images.flip(-1, -2) * 2 - 1)
    assert torch.equal(data.test_set.tensors[0], splits["test"].images * 2 - 1)


def test_several_angles_show_each_image_at_each():
    data = DigitsDataModule(angles=[0, 90], num_train=20)
    data.setup("fit")
    images, labels = data.train_set.tensors
    assert len(images) == 40
    assert torch.equal(images[20:], torch.rot90(images[:20], 1, (-2, -1)))
    assert torch.equal(labels[20:], labels[:20])


def test_limited_training_images_are_a_balanced_part_of_the_training_split():
    data = DigitsDataModule(angles=[0], num_train=500)
    data.setup("fit")
    images, labels = data.train_set.tensors
    assert labels.bincount().tolist() == [50] * 10
    assert set(rows((images + 1) / 2)) <= set(rows(load_digits_splits()["train"].images))


def test_take_balanced_keeps_images_with_their_labels():
    labels = torch.tensor([2, 2, 0, 1, 0, 2])
    split = DigitsSplit(labels.view(-1, 1, 1, 1).float(), labels)
    chosen = take_balanced(split, 5)
    assert torch.equal(chosen.images.flatten().long(), chosen.labels)
    assert sorted(chosen.labels.tolist()) == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("degrees", [90, 180, 270, -90, 360])
def test_interpolation_turns_the_same_way_as_exact_quarter_turns(degrees):
    images = load_digits_splits()["test"].images[:20]
    assert torch.allclose(rotate(images, degrees), rotate(images, degrees + 1e-4), atol=1e-4)


def test_quarter_turns_change_no_pixel():
    images = load_digits_splits()["test"].images
    assert torch.equal(rotate(rotate(images, 90), 270), images)
    assert torch.equal(rotate(images, 180), images.flip(-1, -2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"angles": []}, "at least one angle"),
        ({"test_angles": []}, "at least one angle"),
        ({"loader": {"batch_size": 0}}, "`batch_size` must be at least 1, not 0"),
        ({"num_train": 0}, "`num_train` must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**arguments)


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="at most 1197, the images there are, not 1198"):
        DigitsDataModule(num_train=1198).setup("fit")


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'asym-lightning\[demo\]'"):
        load_digits_splits()
