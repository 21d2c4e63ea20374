"""Predictions of any module, of any number of processes, in one file in the order of the data."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from asym_lightning.lifecycle.predictions import PredictionsFile
from tests.two_processes import in_two_processes


class Doubles(LightningModule):
    """Predicts two numbers of each row."""

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return torch.stack([batch[0], 2 * batch[0]], dim=1)


def loader(num: int = 11) -> DataLoader:
    return DataLoader(TensorDataset(torch.arange(num)), batch_size=2)


def predict(folder: Path, *loaders, module: LightningModule | None = None, **options) -> PredictionsFile:
    file = PredictionsFile()
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[file], default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    given = list(loaders) or [loader()]
    assert trainer.predict(module or Doubles(), given if len(given) > 1 else given[0], return_predictions=False) is None
    return file


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def in_both(folder: str) -> None:
    predict(Path(folder), devices=2, strategy="ddp")


def test_all_rows_of_two_processes_in_the_order_of_the_data(tmp_path):
    in_two_processes(in_both, str(tmp_path), timeout=60)
    expected = [{"id": str(n), "prediction_0": str(n), "prediction_1": str(2 * n)} for n in range(11)]
    assert rows(tmp_path / "predictions.csv") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_a_data_loader_has_a_file_each(tmp_path):
    file = predict(tmp_path, loader(3), loader(5))
    assert [path.name for path in file.paths] == ["predictions_0.csv", "predictions_1.csv"]
    assert [len(rows(path)) for path in file.paths] == [3, 5]


def test_a_second_prediction_begins_anew(tmp_path):
    predict(tmp_path)
    predict(tmp_path, loader(3))
    assert len(rows(tmp_path / "predictions.csv")) == 3


class Numbers(IterableDataset):
    def __iter__(self):
        return ((torch.tensor(n),) for n in range(5))


def test_rows_of_an_iterable_data_set_are_numbered_as_they_come(tmp_path):
    predict(tmp_path, DataLoader(Numbers(), batch_size=2))
    assert [row["id"] for row in rows(tmp_path / "predictions.csv")] == list("01234")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (lambda x: x.float() / 2, {"id": "1", "prediction": "0.500000"}),
        (lambda x: {"score": x, "logits": torch.stack([x, x], 1)}, {"score": "1", "logits_0": "1", "logits_1": "1"}),
        (lambda x: [{"text": f"t{n}"} for n in x.tolist()], {"id": "1", "text": "t1"}),
        (lambda x: [f"t{n}" for n in x.tolist()], {"prediction": "t1"}),
    ],
)
def test_what_a_module_returns_becomes_columns(output, expected, tmp_path):
    class Returning(LightningModule):
        def predict_step(self, batch, batch_idx):
            return output(batch[0])

    predict(tmp_path, module=Returning())
    second = rows(tmp_path / "predictions.csv")[1]
    assert {name: second[name] for name in expected} == expected


def test_lines_of_json(tmp_path):
    file = PredictionsFile("x.jsonl", lambda: tmp_path)
    Trainer(accelerator="cpu", logger=False, callbacks=[file], enable_progress_bar=False).predict(Doubles(), loader(2))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines == [{"id": str(n), "prediction_0": n, "prediction_1": 2 * n} for n in range(2)]


def test_a_table_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    file = PredictionsFile("x.parquet", lambda: tmp_path)
    Trainer(accelerator="cpu", logger=False, callbacks=[file], enable_progress_bar=False).predict(Doubles(), loader(2))
    rows = pyarrow.read_table(tmp_path / "x.parquet").to_pylist()
    assert rows == [{"id": str(n), "prediction_0": n, "prediction_1": 2 * n} for n in range(2)]


def test_columns_that_only_later_rows_have_are_written(tmp_path):
    class Partly(LightningModule):
        def predict_step(self, batch, batch_idx):
            return [{"score": n, **({"target": n} if n > 2 else {})} for n in batch[0].tolist()]

    predict(tmp_path, loader(5), module=Partly())
    assert [row["target"] for row in rows(tmp_path / "predictions.csv")] == ["", "", "", "3", "4"]


@pytest.mark.parametrize("file", ["x.xlsx", "there/x.csv", "csv"])
def test_a_file_of_another_kind_is_refused(file):
    with pytest.raises(
        ValueError, match=rf"can't be written to '{file}': name a file .* in \.csv, \.tsv, \.jsonl, \.p"
    ):
        PredictionsFile(file)
