import shutil

import pytest
import timm
import torch
from lightning.pytorch import Trainer

from asym_lightning.data import ImageFolderDataModule, LoaderOptions
from asym_lightning.modules import ImageClassifier
from tests.image_stand_ins import write_images

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val", "test"):
        write_images(tmp_path / split, CLASSES, per_class=3, size=20)
    return tmp_path


def test_images_are_trained_on_in_the_models_own_size_and_normalisation(folder):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    model.pretrained_cfg["input_size"] = (3, 32, 32)
    module = ImageClassifier(model, num_classes=3)
    data = ImageFolderDataModule(folder, loader=LoaderOptions(batch_size=4, eval_batch_size=64))
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, data)
    assert "test/accuracy" in trainer.test(module, data, verbose=False)[0]
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (9, 3, 32, 32) and labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.image_input().mean == (0.5, 0.5, 0.5) == tuple(module.data_config["mean"])


def test_classes_are_numbered_by_the_training_folder_alone(folder):
    shutil.rmtree(folder / "val/ant")
    data = ImageFolderDataModule(folder, loader=LoaderOptions(), allow_missing_classes=True)
    data.setup("fit")
    assert {label for _, label in data.samples["val"]} == {1, 2}
    with pytest.raises(ValueError, match="val has no images of the class ant"):
        ImageFolderDataModule(folder, loader=LoaderOptions()).setup("fit")


def test_grey_models_get_grey_images(folder):
    data = ImageFolderDataModule(folder, image_size=8, mean=[0.5], std=[0.5], loader=LoaderOptions())
    data.setup("test")
    images, _ = next(iter(data.test_dataloader()))
    assert images.shape == (9, 1, 8, 8)
    assert torch.equal(images, next(iter(data.predict_dataloader()))[0])


def test_validation_may_be_left_out(folder):
    shutil.rmtree(folder / "val")
    data = ImageFolderDataModule(folder, val=None, loader=LoaderOptions())
    data.setup("fit")
    assert data.val_dataloader() == []


def test_bad_folders_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere/train' with train images"):
        ImageFolderDataModule(folder / "nowhere").setup("fit")
    write_images(folder / "val", ["dog"])
    with pytest.raises(ValueError, match=r"val has folders that are none of the classes: dog"):
        ImageFolderDataModule(folder).setup("fit")


def test_corrupt_image_is_named_and_left_out_only_when_asked(folder):
    path = folder / "test/bee/1.png"
    path.write_bytes(b"nonsense")
    data = ImageFolderDataModule(folder, loader=LoaderOptions())
    data.setup("test")
    with pytest.raises(ValueError, match=r"test/bee/1\.png cannot be read as an image .*`skip_corrupt: true`"):
        list(data.test_dataloader())
    skipping = ImageFolderDataModule(folder, loader=LoaderOptions(), skip_corrupt=True)
    with pytest.warns(UserWarning, match=r"1 images cannot be read and were left out: .*test/bee/1\.png"):
        skipping.setup("test")
    assert len(next(iter(skipping.test_dataloader()))[0]) == 8


@pytest.fixture
def flat(tmp_path):
    return write_images(tmp_path / "animals", CLASSES, per_class=10)


def parts(folder, **options):
    data = ImageFolderDataModule(folder, loader=LoaderOptions(), **options)
    data.setup("fit")
    return data.samples


def test_a_folder_of_classes_is_divided_class_by_class_and_always_alike(flat):
    samples = parts(flat, val_fraction=0.2, test_fraction=0.1)
    assert {split: [label for _, label in found] for split, found in samples.items()} == {
        "train": [0] * 7 + [1] * 7 + [2] * 7, "val": [0, 0, 1, 1, 2, 2], "test": [0, 1, 2],
    }  # fmt: skip
    assert len({path for found in samples.values() for path, _ in found}) == 30
    assert parts(flat, val_fraction=0.2, test_fraction=0.1) == samples
    assert parts(flat, val_fraction=0.2, test_fraction=0.1, split_seed=1) != samples


def test_what_is_added_to_one_class_leaves_the_others_as_they_were_divided(flat):
    before = parts(flat)
    write_images(flat, ["ant"], per_class=20)
    after = parts(flat)
    assert [s for s in before["test"] if s[1]] == [s for s in after["test"] if s[1]]
    assert len(after["train"]) > len(before["train"])


def test_a_folder_of_classes_may_be_divided_in_two(flat):
    assert parts(flat, val=None, test_fraction=0.0)["val"] == []
    data = ImageFolderDataModule(flat, test_fraction=0.0)
    with pytest.raises(ValueError, match="`test_fraction` is 0: there are no test images"):
        data.setup("test")


def test_a_class_with_too_few_images_to_divide_is_named(flat):
    write_images(flat, ["dog"], per_class=2)
    with pytest.raises(ValueError, match="the class dog has 2 samples, too few to train on one and keep 1 for valid"):
        parts(flat)
    with pytest.raises(ValueError, match=r"`val_fraction` 0\.5 and `test_fraction` 0\.5 leave nothing to train on"):
        parts(flat, val_fraction=0.5, test_fraction=0.5)


def test_one_class_is_refused(flat, folder):
    for name in CLASSES[1:]:
        shutil.rmtree(flat / name)
        shutil.rmtree(folder / "train" / name)
    for place, message in ((flat, "animals should have a folder for each class"), (folder, "train should have a fol")):
        with pytest.raises(ValueError, match=rf"{message}.*, and two at least; it has ant\."):
            parts(place)


def test_folders_of_folders_are_not_taken_for_classes(tmp_path):
    write_images(tmp_path / "training", CLASSES)
    write_images(tmp_path / "validation", CLASSES)
    with pytest.raises(FileNotFoundError, match="train' with train images"):
        parts(tmp_path)


def predicting(*places, **options):
    data = ImageFolderDataModule(predict=places, image_size=8, loader=LoaderOptions(num_workers=0), **options)
    data.setup("predict")
    return data.predict_dataloader()


def test_images_without_classes_are_predicted_from_files_and_folders(flat):
    loader = predicting(flat / "cat" / "9.png", flat / "bee")
    images = next(iter(loader))
    assert images.shape == (11, 3, 8, 8)
    ids = [loader.dataset.identifier(number) for number in range(11)]
    assert ids == [str(flat / "cat/9.png"), *(str(flat / f"bee/{n}.png") for n in range(10))]


def test_what_can_not_be_predicted_is_named(flat, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no image or folder of images 'nowhere'"):
        predicting("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no images \(\.jpg"):
        predicting(tmp_path / "empty")
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"note\.jpg cannot be read as an image"):
        list(predicting(tmp_path / "note.jpg"))
    with pytest.warns(UserWarning, match=r"1 images cannot be read and were left out: .*note\.jpg"):
        assert len(predicting(tmp_path / "note.jpg", flat / "bee", skip_corrupt=True).dataset) == 10
    with pytest.raises(ValueError, match="neither a `folder` of images is given, nor images to `predict`"):
        ImageFolderDataModule()


def test_a_model_that_sees_but_a_shadow_of_the_images_is_warned_of(flat, recwarn):
    grey = ImageFolderDataModule(flat, image_size=8, mean=[0.5], std=[0.5], loader=LoaderOptions(num_workers=0))
    grey.setup("fit")
    with pytest.warns(UserWarning, match="reads grey images of 8 x 8, and .*png has 16 x 16 in colour: one for photos"):
        grey.train_dataloader()
    tiny = ImageFolderDataModule(flat, image_size=4, loader=LoaderOptions(num_workers=0))
    tiny.setup("fit")
    with pytest.warns(UserWarning, match="reads images of 4 x 4, .*such as `--model.backbone vit_small"):
        tiny.train_dataloader()
    recwarn.clear()
    fitting = ImageFolderDataModule(flat, image_size=8, loader=LoaderOptions(num_workers=0))
    fitting.setup("fit")
    fitting.train_dataloader()
    assert not recwarn.list
