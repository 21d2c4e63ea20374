"""Images with boxes of objects, in COCO's layout."""

import json

import pytest
import torch
from PIL import Image

from asym_lightning.data import DetectionDataModule, LoaderOptions
from tests.image_stand_ins import write_boxed_images

PLAIN = {"image_size": 16, "mean": [0, 0, 0], "std": [1, 1, 1], "loader": LoaderOptions(4, 4)}


@pytest.fixture
def file(tmp_path):
    return write_boxed_images(tmp_path / "boxes", count=6, size=32)


def test_boxes_are_shares_of_the_image_and_classes_go_by_the_ids_of_categories(file):
    data = DetectionDataModule(train=file, val=file, **PLAIN)
    data.setup("fit")
    assert data.label_names == ["blue", "red"]
    images, targets = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 16, 16) and len(targets) == 4 and type(targets[0]["boxes"]) is torch.Tensor
    content = json.loads(file.read_text())
    for target, annotation in zip(targets, content["annotations"], strict=False):
        left, top, width, height = (value / 32 for value in annotation["bbox"])
        assert target["boxes"].tolist() == [pytest.approx([left + width / 2, top + height / 2, width, height])]
        assert target["labels"].tolist() == [{7: 1, 3: 0}[annotation["category_id"]]]


def test_boxes_below_a_pixel_count_in_evaluation(file):
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [4, 4, 1, 1]  # half a pixel of the model's
    file.write_text(json.dumps(content))
    data = DetectionDataModule(train=file, val=file, **PLAIN)
    data.setup("fit")
    _, targets = next(iter(data.val_dataloader()))
    assert targets[0]["boxes"].tolist() == [pytest.approx([4.5 / 32, 4.5 / 32, 1 / 32, 1 / 32])]


def test_images_and_boxes_are_augmented_at_once(file):
    data = DetectionDataModule(train=file, **PLAIN)
    data.setup("fit")
    torch.manual_seed(0)
    num_seen = 0
    for _ in range(5):
        for images, targets in data.train_dataloader():
            for image, target in zip(images, targets, strict=True):
                for (x, y, _, _), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
                    pixel = image[:, min(int(y * 16), 15), min(int(x * 16), 15)]
                    assert pixel.argmax() == [2, 0][label]  # blue, red
                    num_seen += 1
    assert num_seen > 15


def test_images_to_predict_are_those_of_a_folder(file):
    data = DetectionDataModule(predict=file.parent, label_names=["a"], **PLAIN)
    data.setup("predict")
    assert next(iter(data.predict_dataloader())).shape == (4, 3, 16, 16)


def test_crowds_are_left_out_and_images_may_have_no_object(file):
    content = json.loads(file.read_text())
    content["annotations"] = [{**content["annotations"][0], "iscrowd": 1}]
    file.write_text(json.dumps(content))
    data = DetectionDataModule(val=file, label_names=["blue", "red"], **PLAIN)
    data.setup("validate")
    _, targets = next(iter(data.val_dataloader()))
    assert [target["boxes"].shape for target in targets] == [(0, 4)] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].update(category_id=9), "annotation 1: there is no category with the id 9"),
        (lambda c: c["annotations"][1].update(image_id=9), "annotation 1: there is no image with the id 9"),
        (lambda c: c["annotations"][1].update(bbox=[0, 0, 0, 3]), "annotation 1: `bbox` must be left, top, width"),
        (lambda c: c["annotations"][1].update(bbox="x"), "annotation 1: `bbox` must be left, top, width"),
        (
            lambda c: c["annotations"][1].update(bbox=[40, 0, 2, 3]),
            "annotation 1: `bbox` .* begins outside of its image",
        ),
        (
            lambda c: c["images"][2].update(file_name="no.png"),
            "image 2: there is no image '.*/no.png'; `skip_corrupt: true` leaves it out",
        ),
        (lambda c: c["categories"][0].pop("name"), "category 0: it has no `id` and `name`"),
        (lambda c: c.pop("categories"), "has no list of objects `categories`"),
        (lambda c: c.update(images=[], annotations=[]), "has no image"),
        (lambda c: c["annotations"][1].update(bbox=[0, 0, float("nan"), 3]), "annotation 1: `bbox` must be left, top"),
        (lambda c: c["images"][1].update(id=10), "image 1: there is another of the id 10 before it"),
        (lambda c: c["images"][1].update(id=[]), r"image 1: its `id` must be a number or a text, not \[\]"),
        (lambda c: c["categories"][1].update(id=7), "category 1: there is another of the id 7 before it"),
        (lambda c: c.update(annotations=[]), "has no box to learn from"),
    ],
)
def test_bad_files_are_refused_by_the_number_of_the_entry(file, change, message):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        DetectionDataModule(train=file, **PLAIN).setup("fit")


def test_images_that_cannot_be_read_are_left_out_where_that_is_asked_for(file):
    (file.parent / "0.png").unlink()
    (file.parent / "1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"image 0: there is no image '.*0\.png'; `skip_corrupt: true` leaves it out"):
        DetectionDataModule(train=file, **PLAIN).setup("fit")
    data = DetectionDataModule(train=file, skip_corrupt=True, **PLAIN)
    with pytest.warns(UserWarning, match="2 images cannot be read and were left out"):
        data.setup("fit")
    assert len(data.samples["train"]) == 4


def test_categories_of_one_name_are_one_class(file):
    content = json.loads(file.read_text())
    content["categories"].append({"id": 9, "name": "red"})
    content["annotations"][0]["category_id"] = 9
    file.write_text(json.dumps(content))
    data = DetectionDataModule(train=file, **PLAIN)
    data.setup("fit")
    assert data.label_names == ["blue", "red"] and data.samples["train"][0][1][0][1] == 1


def test_other_bad_input_is_refused(file, tmp_path):
    with pytest.raises(ValueError, match="annotation 0: the category must be one of cat, not"):
        DetectionDataModule(train=file, label_names=["cat"], **PLAIN).setup("fit")
    with pytest.raises(ValueError, match="none of `train`, `val`, `test` and `predict`"):
        DetectionDataModule()
    with pytest.raises(ValueError, match="neither a training file nor a checkpoint"):
        DetectionDataModule(val=file).setup("validate")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    file.write_text("{")
    with pytest.raises(ValueError, match=r"boxes\.json"):
        DetectionDataModule(train=file, **PLAIN).setup("fit")
