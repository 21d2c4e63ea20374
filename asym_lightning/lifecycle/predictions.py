"""Predictions of all processes in one file that people read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from asym_lightning.core.ddp import from_all_processes
from asym_lightning.core.extras import extra_named
from asym_lightning.core.files import atomic_file
from asym_lightning.core.messages import shown

Row = Mapping[str, Any]
PREDICTIONS = "predictions.csv"


@runtime_checkable
class HasPredictionRows(Protocol):
    """A module that says what its predictions mean."""

    def prediction_rows(self, prediction: Any, batch: Any, identifiers: Sequence[str]) -> Sequence[Row]:
        """What is written of a batch, a row a sample: names of columns and values."""


class PredictionsFile(BasePredictionWriter):
    """Write what `predict_step` returns to one file, in the order of the data, whatever the number of processes.

    Rows are written batch by batch to a part for each process, and put together when all are done, so that
    `return_predictions=False` holds no predictions in memory. A module with `prediction_rows` says itself what its rows
    are; of any other a tensor's entries, the tensors of a dictionary or the dictionaries of a list are written. Several
    data loaders have a file each, by their names in the data module's `evaluation_sets` or by their number.

    Args:
        file: Name of the file in the run's directory, with the suffix `csv`, `tsv`, `jsonl` or `parquet`. None takes
            `predictions.csv`, or the file that the module has for its predictions.
        folder: Gives the run's directory; None takes the Trainer's.

    Raises:
        ValueError: If the suffix is another.

    Example:
        >>> PredictionsFile("predictions.tsv").file
        'predictions.tsv'
    """

    def __init__(self, file: str | None = None, folder: Callable[[], Path] | None = None) -> None:
        super().__init__("batch")
        self.gives_way = file is None
        file = file or PREDICTIONS
        if Path(file).suffix not in _WRITERS or Path(file).name != file:
            raise ValueError(
                f"predictions can't be written to {shown(file)}: name a file without a folder that ends in "
                f"{', '.join(_WRITERS)}."
            )
        self.file = file
        self.folder = folder
        self.paths: list[Path] = []
        """What was written last."""
        self._folder = Path()
        self._count: dict[int, int] = {}

    @override
    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._count = {}
        # Asked for once by all processes: the first one sends it to them.
        folder = self.folder() if self.folder is not None else trainer.log_dir or trainer.default_root_dir
        self._folder = Path(folder)

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append a batch to this process' part."""
        first = dataloader_idx not in self._count
        count = self._count.setdefault(dataloader_idx, 0)
        names = _identifiers(trainer, dataloader_idx)
        given = list(batch_indices or ())
        rows = _rows(pl_module, prediction, batch, [names(number) for number in given])
        # Without indices, as of an iterable data set, processes are taken to take turns.
        numbers = given or [(count + i) * trainer.world_size + trainer.global_rank for i in range(len(rows))]
        self._count[dataloader_idx] += len(rows)
        part = self._part(dataloader_idx, trainer.global_rank)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w" if first else "a", encoding="utf-8") as file:
            for number, row in zip(numbers, rows, strict=True):
                file.write(f"{number}\t{json.dumps({'id': str(number), **row}, ensure_ascii=False)}\n")

    @override
    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the parts together, in the first process."""
        num_sets = max(from_all_processes(len(self._count)))  # a process may have had no row of some
        self.paths = [self._path(trainer, number, num_sets) for number in range(num_sets)]
        if trainer.is_global_zero:
            for number, path in enumerate(self.paths):
                parts = [self._part(number, rank) for rank in range(trainer.world_size)]
                rows = _Rows([part for part in parts if part.is_file()])
                with atomic_file(path) as staging:
                    _WRITERS[path.suffix](staging, rows)
                for part in parts:
                    part.unlink(missing_ok=True)
        for path in self.paths:
            rank_zero_info(f"predictions    {path}")
        trainer.strategy.barrier()

    def _path(self, trainer: Trainer, number: int, num_sets: int) -> Path:
        path = self._folder / self.file
        if num_sets == 1:
            return path
        sets = getattr(getattr(trainer, "datamodule", None), "evaluation_sets", {}).get("predict")
        return path.with_stem(f"{path.stem}_{sets[number] if sets else number}")

    def _part(self, number: int, rank: int) -> Path:
        return self._folder / f".{self.file}.{number}.{rank}.part"


def file_of_module(module: LightningModule, file: str, folder: Callable[[], Path]) -> list[Callback]:
    """What a module's `configure_callbacks` adds to write its predictions: nothing where the user named a file."""
    callbacks: list[Callback] = module.trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
    is_named = any(isinstance(callback, PredictionsFile) and not callback.gives_way for callback in callbacks)
    return [] if is_named else [PredictionsFile(file, folder)]


def _identifiers(trainer: Trainer, number: int) -> Callable[[int], str]:
    """What a data set calls its rows, by their number: its own `identifier`, else the number."""
    loaders = trainer.predict_dataloaders
    loader = loaders[number] if isinstance(loaders, (list, tuple)) else loaders
    return getattr(getattr(loader, "dataset", None), "identifier", str)


def _rows(module: LightningModule, prediction: Any, batch: Any, identifiers: Sequence[str]) -> Sequence[Row]:
    if isinstance(module, HasPredictionRows):
        return module.prediction_rows(prediction, batch, identifiers)
    rows = _plain_rows(prediction)
    if len(identifiers) != len(rows):
        return rows
    return [{"id": identifier, **row} for identifier, row in zip(identifiers, rows, strict=True)]


def _plain_rows(prediction: Any) -> Sequence[Row]:
    """Rows of predictions whose meaning is not known.

    >>> import torch
    >>> _plain_rows(torch.tensor([[1.0, 2.0]])), _plain_rows({"score": torch.tensor([3, 4])})
    ([{'prediction_0': 1.0, 'prediction_1': 2.0}], [{'score': 3}, {'score': 4}])
    """
    if isinstance(prediction, Tensor):
        values = prediction.detach().float() if prediction.is_floating_point() else prediction
        return [_columns("prediction", value) for value in values.tolist()]
    if isinstance(prediction, Mapping):
        columns = {name: v.detach().tolist() if isinstance(v, Tensor) else list(v) for name, v in prediction.items()}
        return [
            {k: v for name, value in zip(columns, row, strict=True) for k, v in _columns(name, value).items()}
            for row in zip(*columns.values(), strict=True)
        ]
    if isinstance(prediction, Sequence) and all(isinstance(row, Mapping) for row in prediction):
        return prediction
    return [{"prediction": str(value)} for value in (prediction if isinstance(prediction, Sequence) else [prediction])]


def _columns(name: str, value: Any) -> Row:
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return {f"{name}_{number}": entry for number, entry in enumerate(value)}
    return {name: value}


class _Rows:
    """Rows of all parts by their numbers, each once: a sampler may have given one to two processes."""

    def __init__(self, parts: Sequence[Path]) -> None:
        texts: dict[int, str] = {}
        for part in parts:
            with part.open(encoding="utf-8") as file:
                for line in file:
                    number, _, text = line.partition("\t")
                    texts[int(number)] = text
        self._texts = [texts[number] for number in sorted(texts)]

    def __iter__(self) -> Iterator[Row]:
        return map(json.loads, self._texts)

    @property
    def columns(self) -> list[str]:
        """Names of all columns; a row need not have each."""
        return list(dict.fromkeys(name for row in self for name in row))


def _write_csv(path: Path, rows: _Rows, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows.columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6f}" if isinstance(v, float) else v for name, v in row.items()})


def _write_jsonl(path: Path, rows: _Rows) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: Path, rows: _Rows) -> None:
    with extra_named("a file of predictions that ends in .parquet"):
        import pyarrow
        import pyarrow.parquet

    table = pyarrow.table({name: [row.get(name) for row in rows] for name in rows.columns})
    pyarrow.parquet.write_table(table, path)


_WRITERS: Mapping[str, Callable[[Path, _Rows], None]] = {
    ".csv": _write_csv,
    ".tsv": partial(_write_csv, delimiter="\t"),
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
