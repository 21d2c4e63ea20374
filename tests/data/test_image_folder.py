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
