"""Images with a class for each pixel."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from asym_lightning.data import LoaderOptions, SegmentationDataModule
from asym_lightning.data.images.image_transforms import ImageInput, joint_transform
from asym_lightning.data.images.mask_files import MaskValues
from tests.image_stand_ins import write_masked_images

NAMES = ["ground", "square", "disc"]
OPTIONS = {"label_names": NAMES, "image_size": 16, "loader": LoaderOptions(2, 2)}


@pytest.fixture
def shapes(tmp_path):
    return write_masked_images(tmp_path / "shapes", count=4, size=24)


def batch(data, split="val"):
    data.setup("fit" if split in ("train", "val") else split)
    return next(iter(getattr(data, f"{split}_dataloader")()))


def test_a_folder_pairs_images_and_masks_by_name(shapes):
    images, masks = batch(SegmentationDataModule(train=shapes, val=shapes, **OPTIONS))
    assert images.shape == (2, 3, 16, 16) and masks.shape == (2, 16, 16) and masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= {-100, 0, 1, 2} and type(images) is type(masks) is torch.Tensor


def test_a_folder_may_be_named_from_where_the_command_runs(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parent)
    data = SegmentationDataModule(train=shapes.name, val=shapes.name, **OPTIONS)
    data.setup("fit")
    assert data.samples["train"][0] == ("shapes/images/0.png", "shapes/masks/0.png")


def test_a_table_names_both(shapes, tmp_path):
    rows = [{"picture": f"images/{number}.png", "truth": f"masks/{number}.png"} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"folder": shapes, "image_column": "picture", "mask_column": "truth"}
    table = batch(
        SegmentationDataModule(train=tmp_path / "rows.jsonl", val=tmp_path / "rows.jsonl", **columns, **OPTIONS)
    )
    folder = batch(SegmentationDataModule(train=shapes, val=shapes, **OPTIONS))
    assert all(torch.equal(one, other) for one, other in zip(table, folder, strict=True))


def test_an_image_and_its_mask_are_augmented_at_once(shapes):
    data = SegmentationDataModule(train=shapes, val=shapes, mean=[0, 0, 0], std=[1, 1, 1], **OPTIONS)
    torch.manual_seed(0)
    seen = [batch(data, "train") for _ in range(3)]
    assert not torch.equal(seen[0][1], seen[1][1])
    for images, masks in seen:  # squares are red, discs green
        inside = torch.nn.functional.max_pool2d((masks != 1).float(), 3, 1, 1) == 0
        assert (images[:, 0] - images[:, 1])[inside].min() > 0
        inside = torch.nn.functional.max_pool2d((masks != 2).float(), 3, 1, 1) == 0
        assert (images[:, 1] - images[:, 0])[inside].min() > 0


@pytest.mark.parametrize("augmentation", [None, "none", "crop_flip", "domainbed"])
def test_grey_models_get_one_channel_and_masks_keep_their_values(augmentation):
    transform = joint_transform(ImageInput((8, 8), (0.5,), (0.5,)), augmentation)
    from torchvision import tv_tensors

    image = tv_tensors.Image(torch.zeros(3, 12, 12, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.full((12, 12), -100))
    image, mask = transform(image, mask)
    assert image.shape == (1, 8, 8) and torch.equal(mask, torch.full((8, 8), -100).as_subclass(type(mask)))


def test_masks_are_indexed_or_grey_and_values_may_begin_at_1(tmp_path):
    from asym_lightning.data.images.mask_files import read_mask

    values = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    grey, indexed = tmp_path / "grey.png", tmp_path / "indexed.png"
    Image.fromarray(values).save(grey)
    image = Image.fromarray(values)
    image.putpalette([7, 8, 9] * 256)
    image.save(indexed)
    for path in (grey, indexed):
        assert read_mask(path, MaskValues(3)).tolist() == [[0, 1], [2, -100]]
        assert read_mask(path, MaskValues(2, reduced=True)).tolist() == [[-100, 0], [1, -100]]


def test_images_to_predict_need_no_masks(shapes):
    data = SegmentationDataModule(predict=shapes / "images", **OPTIONS)
    data.setup("predict")
    assert next(iter(data.predict_dataloader())).shape == (2, 3, 16, 16)


def test_bad_input_is_refused_with_its_file(shapes, tmp_path):
    def message(exception=ValueError, **options):
        with pytest.raises(exception) as error:
            for _ in [batch(SegmentationDataModule(**{"train": shapes, "val": shapes, **OPTIONS, **options}))]:
                pass
        return str(error.value)

    def message_before_a_batch():
        with pytest.raises(ValueError) as error:
            SegmentationDataModule(train=shapes, val=shapes, **OPTIONS).setup("fit")
        return str(error.value)

    assert "none of `train`, `val`, `test` and `predict`" in message(train=None, val=None)
    assert "no folder" in message(FileNotFoundError, val=shapes / "images")
    assert "`label_names` must be given" in message(label_names=None)
    stray = message(label_names=NAMES[:2])
    assert (
        "masks/0.png does not fit: it has the value 2, but the classes are 0 to 1, and 255 what does not count" in stray
    )
    assert "has the value 255, but the classes are 0 to 2" in message(ignored_value=None)
    (tmp_path / "rows.csv").write_text("file,mask\nimages/0.png,masks/9.png\n")
    assert "rows.csv, line 2: there is no file 'masks/9.png'" in message(val=tmp_path / "rows.csv", folder=shapes)
    assert "no column 'truth'" in message(val=tmp_path / "rows.csv", folder=shapes, mask_column="truth")
    (tmp_path / "empty.jsonl").write_text("")
    assert "is empty" in message(val=tmp_path / "empty.jsonl")
    Image.new("RGB", (24, 24)).save(shapes / "masks" / "0.png")
    assert "masks/0.png holds no class for each pixel" in message()
    Image.new("L", (20, 24)).save(shapes / "masks" / "0.png")
    assert "masks/0.png has 24 x 20 pixels, but its image" in message()
    assert "masks/0.png has 24 x 20 pixels, but its image" in message_before_a_batch()
    (shapes / "masks" / "0.png").write_text("no picture")
    assert "masks/0.png cannot be read" in message()
    (shapes / "masks" / "0.png").unlink()
    assert "images/0.png has no mask 0.png in" in message()


def test_images_that_cannot_be_read_are_left_out_where_that_is_asked_for(shapes):
    (shapes / "images" / "0.png").write_text("no image")
    with pytest.raises(ValueError, match=r"images/0\.png cannot be read as an image .*; `skip_corrupt: true` leaves"):
        SegmentationDataModule(train=shapes, val=shapes, **OPTIONS).setup("fit")
    data = SegmentationDataModule(train=shapes, val=shapes, skip_corrupt=True, **OPTIONS)
    with pytest.warns(UserWarning, match="1 images cannot be read and were left out"):
        data.setup("fit")
    assert len(data.samples["train"]) == 3


def test_two_images_of_a_name_would_have_one_mask(shapes, tmp_path):
    write_masked_images(tmp_path / "more" / "images", count=1, size=24)
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "0.png")
    data = SegmentationDataModule(predict=tmp_path / "more", **OPTIONS)
    with pytest.raises(ValueError, match="two images to predict are called '0'"):
        data.setup("predict")
