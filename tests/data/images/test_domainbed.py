import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from asym_lightning.data import DomainBedDataModule, LoaderOptions
from asym_lightning.data.images.domainbed import DATASETS, BalancedSampler
from asym_lightning.data.images.environments import domainbed_split, rotated_digits
from tests.image_stand_ins import write_environments


@pytest.fixture
def pacs(tmp_path):
    root = write_environments(tmp_path / "data", "PACS", per_class=5)

    def make(**options):
        defaults = {"folder": root, "loader": LoaderOptions(), "image_size": 16, "val_fraction": 0.2}
        return DomainBedDataModule("PACS", **{**defaults, **options})

    return make


def test_split_is_domainbeds():
    class Numbers:  # as much of a data set as DomainBed's own code needs, here in its own words
        def __len__(self):
            return 53

    keys = list(range(len(Numbers())))
    np.random.RandomState(int(hashlib.md5(str((2, 3)).encode()).hexdigest(), 16) % (2**31)).shuffle(keys)
    inside, outside = domainbed_split(53, trial_seed=2, environment=3)
    assert (outside, inside) == (keys[: int(53 * 0.2)], keys[int(53 * 0.2) :])


def test_parts_of_an_environment_do_not_overlap(pacs):
    data = pacs()
    data.setup("fit")
    parts = data._parts("cartoon")
    assert sorted(parts["train"] + parts["val"] + parts["out"]) == parts["all"] == list(range(35))
    assert (len(parts["out"]), len(parts["val"]), len(parts["train"])) == (7, 5, 23)
    assert parts["in"] == parts["val"] + parts["train"]
    other = pacs(trial_seed=1)
    other.setup("fit")
    assert other._parts("cartoon")["out"] != parts["out"]


def test_default_is_the_papers_environment_and_the_others_are_out_of_domain(pacs):
    data = pacs()
    data.setup("fit")
    assert data.evaluation_sets == {
        "val": ["cartoon"],
        "test": ["cartoon_train", "cartoon_test", "art_painting", "photo", "sketch"],
        "predict": ["art_painting", "photo", "sketch"],
    }
    sizes = [len(loader.dataset) for loader in data.test_dataloader()]
    assert sizes == [23, 7, 35, 35, 35]
    out = pacs(ood_split="out", test_environments=["photo"])
    out.setup("test")
    assert [len(loader.dataset) for loader in out.test_dataloader()] == [23, 7, 7]


def test_environments_share_one_class_index(pacs, tmp_path):
    shutil.rmtree(tmp_path / "data/PACS/photo/class_00")
    data = pacs(allow_missing_classes=True)
    data.setup("fit")
    photo = next(environment for environment in data.environments if environment.name == "photo")
    for path, label in photo.samples:
        assert data.label_names[label] in path


def test_environment_without_a_class_is_refused(pacs, tmp_path):
    shutil.rmtree(tmp_path / "data/PACS/photo/class_03")
    with pytest.raises(ValueError, match=r"photo has no images of the class class_03; `allow_missing_classes: true`"):
        pacs().setup("fit")


def test_evaluation_is_not_augmented_and_training_is(pacs):
    data = pacs(augmentation="domainbed")
    data.setup("fit")
    (val,) = data.val_dataloader()
    assert torch.equal(next(iter(val))[0], next(iter(val))[0])
    torch.manual_seed(0)
    train = data.train_dataloader().dataset
    assert not torch.equal(train[0][0], train[0][0])
    evaluated = data.test_dataloader()[0].dataset  # the same images
    assert torch.equal(evaluated[0][0], evaluated[0][0])


def test_normalisation_is_the_models_or_domainbeds(pacs):
    config = {"input_size": (3, 24, 24), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    trainer = SimpleNamespace(lightning_module=SimpleNamespace(data_config=config))
    data = pacs(image_size=None)
    data.setup("fit")
    data.trainer = trainer
    image = next(iter(data.val_dataloader()[0]))[0]
    assert image.shape[-2:] == (24, 24) and image.min() >= -1 and image.max() <= 1
    imagenet = pacs(image_size=None, domainbed_norm=True)
    imagenet.setup("fit")
    imagenet.trainer = trainer
    assert imagenet.image_input().mean[0] == 0.485
    assert imagenet.image_input().size == (24, 24)


def test_summary_weighs_environments_alike(pacs):
    data = pacs(train_environments=["photo", "sketch"])
    data.setup("fit")
    accuracies = {"photo_train": 1.0, "sketch_train": 0.8, "photo_test": 0.7, "sketch_test": 0.5, "cartoon": 0.2}
    values = {f"test/{name}/accuracy": value for name, value in accuracies.items()} | {
        "test/art_painting/accuracy": 0.4
    }
    assert data.summarize("test", values) == pytest.approx(
        {
            "test/train_accuracy": 0.9,
            "test/in_domain_accuracy": 0.6,
            "test/train_test_gap": 0.3,
            "test/ood_accuracy": 0.3,
        }
    )


def test_batches_hold_as_many_images_of_each_training_environment(pacs):
    data = pacs(train_environments=["photo", "sketch"], loader=LoaderOptions(batch_size=4))
    data.setup("fit")
    loader = data.train_dataloader()
    half = len(loader.dataset) // 2
    order = list(loader.sampler)
    assert loader.batch_size == 8
    assert all(sum(number < half for number in order[i : i + 8]) == 4 for i in range(0, 40, 8))
    assert len(list(BalancedSampler([7, 3]))) == 14


def test_rotated_digits_need_no_files_and_share_no_image():
    environments = rotated_digits()
    assert [environment.name for environment in environments] == ["0", "15", "30", "45", "60", "75"]
    assert sum(map(len, environments)) == 1797
    again = rotated_digits()
    assert all(torch.equal(a.images, b.images) for a, b in zip(environments, again, strict=True))


@pytest.mark.parametrize("name", [name for name, description in DATASETS.items() if description.folder])
def test_missing_data_is_named_with_where_to_get_it(tmp_path, name):
    expected = (
        rf"{name} is expected in .*{DATASETS[name].folder}'.*{DATASETS[name].environments[0]}.*domainbed\.scripts"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        DomainBedDataModule(name, tmp_path).setup("fit")
    with pytest.raises(FileNotFoundError, match="`folder` must name DomainBed's data folder"):
        DomainBedDataModule(name).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_environments": ["foto"]}, r"`train_environments` of PACS .* not 'foto': did you mean photo\?"),
        ({"test_environments": ["photoo"]}, r"`test_environments` of PACS .* not 'photoo': did you mean photo\?"),
        ({"test_environments": ["cartoon"]}, "cartoon are both trained on and tested"),
        ({"train_environments": []}, "`train_environments` must name at least one"),
        ({"ood_split": "some"}, "`ood_split` must be one of all, in, out, not 'some'"),
        ({"val_fraction": 1.0}, r"`val_fraction` must be in \[0, 1\), not 1.0"),
        ({"augmentation": "mirror"}, "`augmentation` must be one of none, crop_flip, domainbed, not 'mirror'"),
        ({"loader": {"batch_size": 0}}, "`batch_size` must be at least 1"),
    ],
)
def test_bad_argument_is_refused(pacs, options, message):
    with pytest.raises(ValueError, match=message):
        pacs(**options).setup("fit")


def test_unknown_data_set_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"`dataset` must be one of .*, not 'officehome': did you mean OfficeHome\?"):
        DomainBedDataModule("officehome")


def test_corrupt_image_is_named_and_left_out_only_when_asked(pacs, tmp_path):
    path = tmp_path / "data/PACS/cartoon/class_00/0.png"
    path.write_bytes(path.read_bytes()[:60])
    data = pacs()
    data.setup("fit")
    with pytest.raises(ValueError, match=r"class_00/0\.png cannot be read as an image"):
        for loader in [*data.val_dataloader(), *data.test_dataloader()]:
            list(loader)
    with pytest.warns(UserWarning, match=r"1 images cannot be read and were left out: .*class_00/0\.png"):
        skipping = pacs(skip_corrupt=True)
        skipping.setup("fit")
    cartoon = next(environment for environment in skipping.environments if environment.name == "cartoon")
    assert len(cartoon) == 34


def test_stray_folder_is_counted_as_a_class_of_the_data_set_and_missed_elsewhere(pacs, tmp_path):
    (tmp_path / "data/PACS/photo/notes").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "data/PACS/photo/notes/a.png")
    with pytest.raises(ValueError, match="art_painting has no images of the class notes"):
        pacs().setup("fit")
