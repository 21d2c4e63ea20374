"""Images that a table lists."""

import json

import pytest
import torch

from asym_lightning.data import ImageTableDataModule, LoaderOptions
from tests.image_stand_ins import write_images

ROWS = [{"file": "ant/0.png", "labels": ["b", "a"]}, {"file": "ant/1.png", "labels": []}]
ROWS += [{"file": "bee/0.png", "labels": ["c"]}]


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path, ["ant", "bee"])

    def make(content=ROWS, name="train.jsonl", **options):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        return ImageTableDataModule(**{"train": path, "val": path, "loader": LoaderOptions(4), **options})

    return make


def targets(module, split="train"):
    return torch.stack([torch.as_tensor(target) for _, target in module.samples[split]]).tolist()


def test_lists_and_cells_hold_any_number_of_classes(data):
    content = 'file,labels\nant/0.png,"b, a"\nant/1.png,\nbee/0.png,c\n'
    for module in (data(), data(content, "a.csv"), data(content.replace('"b, a"', "b|a"), "b.csv", separator="|")):
        module.setup("fit")
        assert module.label_names == ["a", "b", "c"]
        assert targets(module) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_batches_are_images_and_targets(data):
    module = data(image_size=8)
    module.setup("fit")
    images, hot = next(iter(module.val_dataloader()))
    assert images.shape == (3, 3, 8, 8) and hot.tolist() == targets(module)
    assert next(iter(module.train_dataloader()))[0].shape == images.shape


def test_a_column_holds_a_class_or_a_value_each(data):
    content = "path,kind,age\nant/0.png,old,1.5\nbee/1.png,new,-2\n"
    one = data(content, "a.csv", target="label", image_column="path", target_column="kind")
    one.setup("fit")
    assert one.label_names == ["new", "old"] and targets(one) == [1, 0]
    values = data(content, "a.csv", target="value", image_column="path", target_column="age")
    values.setup("fit")
    assert values.label_names is None and targets(values) == [1.5, -2.0]
    assert next(iter(values.val_dataloader()))[1].dtype == torch.float32


def test_images_to_predict_need_no_targets_and_may_be_in_a_folder(data, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "new.csv").write_text("file\n0.png\n")
    module = data(train=None, val=None, predict=tmp_path / "tables/new.csv", folder=tmp_path / "bee", label_names=["a"])
    module.setup("predict")
    assert module.samples["predict"] == [(str(tmp_path / "bee" / "0.png"), None)]


def test_images_that_cannot_be_read_are_left_out_where_that_is_asked_for(data, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    module = data([*ROWS, {"file": "broken.png", "labels": []}, {"file": "no.png", "labels": []}], skip_corrupt=True)
    with pytest.warns(UserWarning, match="2 images cannot be read and were left out"):
        module.setup("fit")
    assert len(module.samples["train"]) == 3


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ([{"file": "ant/0.png", "labels": ["x", "q"]}], {"label_names": ["x", "y"]},
         r"train\.jsonl, line 1: the class must be one of x, y, not 'q'"),
        ([{"file": "ant/0.png", "labels": None}], {}, "line 1: the classes must be a list or a text, not null"),
        ([{"file": "ant/0.png", "label": "x"}], {}, r"no column 'labels': did you mean label\?"),
        ([{"image": "ant/0.png", "labels": "x"}], {}, "no column 'file'"),
        ([{"file": 3, "labels": "x"}], {}, "line 1: there is no name of a file, but 3"),
        ([{"file": "ant/0.png", "labels": "x"}, {"file": "ant/9.png", "labels": "x"}], {},
         r"train\.jsonl, line 2: there is no image '.*ant/9\.png'; `skip_corrupt: true` leaves it out"),
        ([{"file": "ant/0.png", "labels": []}], {}, "has no class under 'labels': name all by `label_names`"),
        ([{"file": "ant/0.png", "value": "much"}], {"target": "value"}, "line 1: the score 'much' is not a number"),
        ([{"file": "ant/0.png", "label": "z"}], {"target": "label", "label_names": ["x", "y"]},
         "line 1: the label must be one of x, y"),
        ([{"file": "ant/0.png", "label": "x"}], {"target": "label"},
         "has no label but 'x' under 'label': name all classes by `label_names`, or set `target: value`"),
        ([{"file": "ant/0.png", "label": None}], {"target": "label"}, "has no label under 'label': name all"),
        ([{"file": "train.jsonl", "labels": "x"}], {},
         r"line 1: .*train\.jsonl cannot be read as an image .*; `skip_corrupt: true` leaves it out"),
        ([], {}, "is empty: there is nothing to use as train data"),
        (ROWS, {"target": "boxes"}, "`target` must be one of labels, label, value, not 'boxes'"),
        (ROWS, {"target": "value", "label_names": ["x"]}, "`label_names` are for classes"),
        (ROWS, {"train": None, "val": None}, "none of the tables"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_line(data, content, options, message):
    with pytest.raises(ValueError, match=message):
        data(content, **options).setup("fit")
