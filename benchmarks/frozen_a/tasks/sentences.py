"""Sentences of CoLA with a pretrained MiniLM: are they acceptable, and are their words in order?"""

from __future__ import annotations

import csv
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import LightningDataModule
from torch import nn

from asym_lightning.data import LoaderOptions, TextFilesDataModule
from asym_lightning.data.tables.text_table import read_text_table
from asym_lightning.modules import AdapterModule, BackboneOptions, TextClassifier
from asym_lightning.modules.heads.headed_backbone import create_headed_backbone
from benchmarks.cola_minilm import NO_DROPOUT, packaged_encoder
from benchmarks.frozen_a.tasks.task import FOLDER, Task

# Scores of GLUE's own test set are hidden: the development set is the test set, and a part of the training set is held
# out to choose rates by.
NUM_TRAIN, NUM_VAL = 2000, 1000
Row = tuple[str, int]


class Sentences(Task):
    """2,000 sentences and their labels.

    Args:
        folder: With GLUE's files.
    """

    seeds = range(3)
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    max_epochs, num_steps = 3, 375
    head_steps = 30
    peft_targets = ("query", "key", "value")
    warmup, decay = 0.06, "linear"
    labels: ClassVar[Sequence[str]]
    text_task: ClassVar[str] = "classification"

    def __init__(self, folder: Path) -> None:
        self.encoder = str(packaged_encoder())
        train = list(self.rows(folder / "CoLA" / "train.tsv"))
        random.Random(0).shuffle(train)
        splits = {
            "train": train[:NUM_TRAIN],
            "val": train[NUM_TRAIN : NUM_TRAIN + NUM_VAL],
            "test": list(self.rows(folder / "CoLA" / "dev.tsv")),
        }
        self.files = {
            name: _write(FOLDER / f"{type(self).__name__.lower()}_{name}.csv", splits[name]) for name in splits
        }

    @abstractmethod
    def rows(self, path: Path) -> Iterable[Row]:
        """Sentences and labels of a file of CoLA."""

    def data(self, seed: int) -> LightningDataModule:
        return TextFilesDataModule(
            **self.files, label_names=self.labels, tokenizer=self.encoder, max_length=128, seed=seed,
            loader=LoaderOptions(16, 64),
        )  # fmt: skip

    def backbone(self) -> nn.Module:
        options = BackboneOptions(model_args=NO_DROPOUT)
        return create_headed_backbone(self.encoder, len(self.labels), self.labels, options)[0]

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return TextClassifier(backbone, task=self.text_task, label_names=self.labels, **options)

    def forward(self, model: nn.Module, batch: Any) -> Any:
        return model(**{name: value for name, value in batch.items() if name != "labels"})


class Acceptability(Sentences):
    """CoLA itself, by Matthews correlation."""

    name = "CoLA"
    labels = ("unacceptable", "acceptable")
    text_task = "cola"
    val, test = "val/matthews", "test/matthews"

    def rows(self, path: Path) -> Iterable[Row]:
        return zip(*_columns(path), strict=True)


class WordOrder(Sentences):
    """Acceptable sentences, in half of which two neighbouring words have changed places."""

    name = "word order"
    labels = ("in order", "swapped")

    def rows(self, path: Path) -> Iterable[Row]:
        draw = random.Random(path.name)
        for words in acceptable_words(path):
            places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
            if not places:
                continue
            is_swapped = draw.random() < 0.5
            if is_swapped:
                i = draw.choice(places)
                words[i], words[i + 1] = words[i + 1], words[i]
            yield " ".join(words), int(is_swapped)


def acceptable_words(path: Path) -> Iterator[list[str]]:
    """The words of each acceptable sentence of a file of CoLA."""
    return (text.split() for text, is_acceptable in zip(*_columns(path), strict=True) if is_acceptable)


def _columns(path: Path) -> tuple[list[str], list[int]]:
    table = read_text_table(path, header=("source", "label", "note", "sentence"))
    return table.column("sentence"), [int(label) for label in table.column("label")]


def _write(path: Path, rows: Iterable[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
    return path
