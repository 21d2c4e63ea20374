"""`ClassScores` through a Trainer: in foreign modules and ours, over two processes, and with nothing to score."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.analysis.class_scores import class_metrics
from asym_lightning.callbacks import ClassScores
from asym_lightning.modules import ImageClassifier, TextClassifier
from tests.callbacks.foreign import trainer
from tests.two_processes import in_two_processes

NAMES = ["cat", "dog", "bird"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def samples(num: int = 24, num_classes: int = 3, without: int | None = None) -> TensorDataset:
    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.arange(num) % num_classes
    if without is not None:
        labels[labels == without] = (without + 1) % num_classes
    logits = torch.randn(num, num_classes, generator=generator)
    logits[torch.arange(num), labels] += 1
    return TensorDataset(logits, labels)


def loader(**options) -> DataLoader:
    return DataLoader(samples(**options), batch_size=5)


class Scored(LightningModule):
    """A module that knows nothing of this package, whose samples are its logits."""

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        return {"scores": batch[0], "labels": batch[1]}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"scores": batch[0], "labels": batch[1]}

    def training_step(self, batch, batch_idx):
        return (batch[0] * self.weight).sum()

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def scores(**options) -> ClassScores:
    return ClassScores(**{"logits": "scores", "targets": "labels", **options})


def test_a_foreign_module_gets_tables_pictures_and_numbers(tmp_path):
    run = trainer(tmp_path, scores(class_names=NAMES), logger=CSVLogger(tmp_path, name="", version=""))
    run.test(Scored(), loader(), verbose=False)
    logits, labels = samples().tensors
    expected = class_metrics(3)(logits.softmax(-1), labels)
    assert [row["class"] for row in rows(tmp_path / "scores.csv")] == NAMES
    assert [float(row["f1"]) for row in rows(tmp_path / "scores.csv")] == pytest.approx(
        expected["f1"].tolist(), abs=1e-6
    )
    table = rows(tmp_path / "confusion.csv")
    assert [[int(row[name]) for name in NAMES] for row in table] == expected["confusion"].tolist()
    assert {path.name for path in tmp_path.glob("*.png")} == {"confusion.png", "reliability.png"}
    for name in ("macro_f1", "calibration_error"):
        assert float(run.callback_metrics[f"test/{name}"]) == pytest.approx(float(expected[name]))
    assert "test/top5_accuracy" not in run.callback_metrics


def test_validate_writes_files_of_its_own_and_training_writes_none(tmp_path):
    run = trainer(tmp_path, scores(), max_epochs=1, num_sanity_val_steps=1)
    run.fit(Scored(), loader(), loader())
    assert not list(tmp_path.glob("*scores*")) and "val/macro_f1" not in run.callback_metrics
    run.validate(Scored(), loader(), verbose=False)
    assert [row["class"] for row in rows(tmp_path / "val_scores.csv")] == ["0", "1", "2"]
    assert "val/macro_f1" in run.callback_metrics and not (tmp_path / "scores.csv").exists()


def test_a_second_test_begins_anew(tmp_path):
    run = trainer(tmp_path, scores())
    for num in (24, 12):
        run.test(Scored(), loader(num=num), verbose=False)
        assert sum(int(row["samples"]) for row in rows(tmp_path / "scores.csv")) == num


def test_top5_is_logged_from_eleven_classes(tmp_path):
    run = trainer(tmp_path, scores())
    run.test(Scored(), loader(num=44, num_classes=11), verbose=False)
    logits, labels = samples(44, 11).tensors
    inside = (logits.topk(5).indices == labels[:, None]).any(-1)
    assert float(run.callback_metrics["test/top5_accuracy"]) == pytest.approx(float(inside.float().mean()))


def test_a_class_without_a_sample_is_reported_and_nothing_is_nan(tmp_path):
    run = trainer(tmp_path, scores(class_names=NAMES))
    with pytest.warns(UserWarning, match="no sample of the test data is of class bird"):
        run.test(Scored(), loader(without=2), verbose=False)
    assert all(bool(torch.isfinite(value)) for value in run.callback_metrics.values())
    assert rows(tmp_path / "scores.csv")[2]["samples"] == "0"


class Sets(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.evaluation_sets = {"test": ["near", "far"]}
        self.label_names = NAMES

    def test_dataloader(self):
        return [loader(), loader(num=12)]


def test_several_data_sets_have_files_and_numbers_each(tmp_path):
    run = trainer(tmp_path, scores())
    run.test(Scored(), datamodule=Sets(), verbose=False)
    for name, num in (("near", 24), ("far", 12)):
        table = rows(tmp_path / f"scores_{name}.csv")
        assert [row["class"] for row in table] == NAMES
        assert sum(int(row["samples"]) for row in table) == num
        assert f"test/{name}/calibration_error" in run.callback_metrics
        assert (tmp_path / f"confusion_{name}.png").is_file()


def test_our_classifiers_hand_over_what_is_scored(tmp_path):
    module = ImageClassifier("vit_digits", 3, AdapterConfig(rank=2))
    data = DataLoader(TensorDataset(torch.randn(9, 1, 8, 8), torch.arange(9) % 3), batch_size=4)
    run = trainer(tmp_path, ClassScores())
    run.test(module, data, verbose=False)
    confusion = [[int(row[str(number)]) for number in range(3)] for row in rows(tmp_path / "confusion.csv")]
    right = sum(confusion[number][number] for number in range(3))
    assert right / 9 == pytest.approx(float(run.callback_metrics["test/accuracy"]))


def test_text_classifiers_hand_over_what_is_scored_and_regressions_nothing(tmp_path):
    transformers = pytest.importorskip("transformers")
    options = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    for task, outputs, labels in (("mrpc", 2, [0, 1, 1, 0]), ("stsb", 1, [0.5, 1.0, 4.0, 2.0])):
        config = transformers.BertConfig(vocab_size=9, num_labels=outputs, **options)
        names = ["no", "yes"] if outputs == 2 else None
        module = TextClassifier(transformers.BertForSequenceClassification(config), task, names)
        batch = {"input_ids": torch.arange(8).reshape(4, 2), "labels": torch.tensor(labels)}
        run = trainer(tmp_path / task, ClassScores())
        run.test(module, DataLoader([batch], batch_size=None), verbose=False)
        if outputs == 2:
            assert [row["class"] for row in rows(tmp_path / task / "scores.csv")] == ["no", "yes"]
            assert "test/calibration_error" in run.callback_metrics
        else:
            assert not list((tmp_path / task).rglob("*.csv"))


class Silent(Scored):
    def test_step(self, batch, batch_idx):
        return None


class NoClasses(Scored):
    def test_step(self, batch, batch_idx):
        return {"scores": None, "labels": batch[0]}


def test_a_step_that_returns_nothing_is_told_what_to_return(tmp_path):
    with pytest.warns(UserWarning, match="step of Silent return a dictionary with `scores`"):
        trainer(tmp_path, scores()).test(Silent(), loader(), verbose=False)
    assert not list(tmp_path.glob("*.csv"))


def test_a_module_without_classes_is_left_alone(tmp_path):
    run = trainer(tmp_path, scores())
    run.test(NoClasses(), loader(), verbose=False)
    assert not list(tmp_path.glob("*.csv")) and not run.callback_metrics


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TensorDataset(torch.randn(4, 1), torch.zeros(4, dtype=torch.int64)), "of two classes or more"),
        (TensorDataset(torch.randn(4, 3), torch.randn(4)), r"\(4,\) of torch.float32"),
        (TensorDataset(torch.randn(4, 3), torch.zeros(4, 3, dtype=torch.int64)), r"\(4, 3\) of torch.int64"),
    ],
)
def test_what_are_no_logits_and_class_numbers_is_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, scores()).test(Scored(), DataLoader(data, batch_size=4), verbose=False)


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`class_names` are 2, but there are 3 classes"):
        trainer(tmp_path, scores(class_names=["a", "b"])).test(Scored(), loader(), verbose=False)


def test_pictures_are_left_out_without_matplotlib(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("asym_lightning.core.extras.importlib.util.find_spec", lambda name: None)
    caplog.set_level("INFO")
    trainer(tmp_path, scores()).test(Scored(), loader(), verbose=False)
    assert (tmp_path / "confusion.csv").is_file() and not list(tmp_path.glob("*.png"))


def test_tensorboard_shows_the_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer(tmp_path, scores(), logger=logger).test(Scored(), loader(), verbose=False)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["images"]) == {"test/confusion", "test/reliability"}


def scored_by_two(folder: Path) -> dict[str, float]:
    run = trainer(folder, scores(), strategy="ddp", devices=2)
    # Batches of 5 of 24 samples: both have three, the last of them smaller.
    run.test(Scored(), loader(), verbose=False)
    return {name: float(value) for name, value in run.callback_metrics.items()}


def test_two_processes_score_all_samples_once(tmp_path):
    first, second = (outcome.value for outcome in in_two_processes(scored_by_two, tmp_path))
    logits, labels = samples().tensors
    expected = class_metrics(3)(logits.softmax(-1), labels)
    assert first == second
    for name, value in first.items():
        assert value == pytest.approx(float(expected[name.removeprefix("test/")])), name
    confusion = [[int(row[str(number)]) for number in range(3)] for row in rows(tmp_path / "confusion.csv")]
    assert confusion == expected["confusion"].tolist()
    shares = [float(row["share"]) for row in rows(tmp_path / "reliability.csv")]
    assert shares == pytest.approx([share for share in expected["reliability"][2].tolist() if share], abs=1e-6)
