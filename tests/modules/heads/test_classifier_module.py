"""What classifiers know of their classes: from the data, and where there is none from what was trained."""

import csv

import pytest
import torch
from lightning.pytorch import Trainer

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import DigitsDataModule, ImageFolderDataModule, LoaderOptions
from asym_lightning.lifecycle.predictions import PredictionsFile
from asym_lightning.modules import ImageClassifier
from tests.image_stand_ins import write_images

CLASSES = ["ant", "bee", "cat"]
GREY = {"image_size": 8, "mean": [0.5], "std": [0.5], "loader": LoaderOptions(num_workers=0)}


@pytest.fixture
def animals(tmp_path):
    return write_images(tmp_path / "animals", CLASSES, per_class=3, size=8)


def trainer(tmp_path, *callbacks):
    return Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=list(callbacks),
    )  # fmt: skip


def classifier(**options):
    return ImageClassifier("vit_digits", adapter=AdapterConfig(rank=2), **options)


def test_classes_of_the_data_go_with_the_checkpoint_to_predictions_of_other_images(tmp_path, animals):
    fit = trainer(tmp_path)
    module = classifier()
    fit.fit(module, ImageFolderDataModule(animals, **GREY))
    assert module.label_names == CLASSES and module.num_classes == 3
    fit.save_checkpoint(tmp_path / "x.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert again.label_names == CLASSES and again.num_classes == 3
    loose = ImageFolderDataModule(predict=animals / "bee", **GREY)
    predicted = torch.cat(trainer(tmp_path, PredictionsFile()).predict(again, loose))
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", *(f"probability_{name}" for name in CLASSES)]
    assert [row["label"] for row in rows] == [CLASSES[number] for number in predicted.argmax(-1)]
    # Where labels are known, they are beside what is predicted.
    trainer(tmp_path, PredictionsFile()).predict(again, ImageFolderDataModule(animals, **GREY))
    with (tmp_path / "predictions.csv").open() as file:
        assert [row["target"] for row in csv.DictReader(file)] == CLASSES


def test_test_images_alone_have_the_classes_of_the_model(tmp_path, animals):
    (tmp_path / "only").mkdir()
    animals.rename(tmp_path / "only/test")
    data = ImageFolderDataModule(tmp_path / "only", **GREY)
    assert "test/accuracy" in trainer(tmp_path).test(classifier(label_names=CLASSES), data, verbose=False)[0]
    data = ImageFolderDataModule(tmp_path / "only", **GREY)
    with pytest.raises(ValueError, match=r"test has folders that are none of the classes: bee"):
        trainer(tmp_path).test(classifier(label_names=["ant", "cat"]), data, verbose=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 5}, "`num_classes` is 5, but there are 3 classes, ant, bee, cat: leave it out"),
        ({"label_names": ["ant", "bee", "dog"]}, "made for ant, bee, dog: it has cat and lacks dog"),
        ({"label_names": ["bee", "ant", "cat"]}, "made for bee, ant, cat: it has them in the order ant, bee, cat"),
    ],
)
def test_data_of_other_classes_is_refused_before_training(tmp_path, animals, options, message):
    module = classifier(**options)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(module, ImageFolderDataModule(animals, **GREY))
    assert not hasattr(module, "backbone")


def test_names_may_be_given_to_classes_that_are_numbered(tmp_path):
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    module = classifier(label_names=names)
    trainer(tmp_path).fit(module, DigitsDataModule(num_train=10))
    assert module.label_names == names


def test_the_number_of_classes_has_to_be_known():
    with pytest.raises(ValueError, match="`num_classes` is not given, and there is no data module with `label_names`"):
        classifier().configure_model()
    with pytest.raises(ValueError, match="`num_classes` is 3, but there are 2 classes, a, b"):
        classifier(num_classes=3, label_names=["a", "b"])


@pytest.mark.parametrize(
    "others", [(["x.png", "y.png"],), (torch.zeros(2, 4),), (torch.zeros(2),), (torch.tensor([-1, 7]),), ()]
)
def test_what_is_no_label_of_the_model_is_left_alone(others):
    rows = classifier(num_classes=2).prediction_rows(torch.eye(2), (torch.zeros(2, 1, 8, 8), *others), ["a", "b"])
    assert [list(row) for row in rows] == [["id", "label", "probability_0", "probability_1"]] * 2
    assert [row["label"] for row in rows] == ["0", "1"]
