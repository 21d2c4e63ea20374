"""Data of which a metric can't be computed: it is said in words, and no monitor gets a NaN, which would end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from tests.tasks import TASKS, config, speech


class Case(NamedTuple):
    """A task, what is made of its targets, the metric that watches it, and what is said."""

    task: Callable[..., Any]
    change: Callable[[Any], Any]
    monitor: str
    said: str | None


def targets(value: float) -> Callable[[Any], Any]:
    """Give all samples one target."""
    return lambda batch: (batch[0], torch.full_like(batch[1], value))


def fields(**values: float) -> Callable[[Any], Any]:
    """Give fields of a batch one value."""
    return lambda batch: {**batch, **{name: torch.full_like(batch[name], value) for name, value in values.items()}}


def added(**tensors: torch.Tensor) -> Callable[[Any], Any]:
    return lambda batch: {**batch, **tensors}


CONSTANT = "correlation is undefined, for predictions or labels are all alike: reported as 0"
NO_ENTITY = "there is no entity among the labels: precision, recall and F1 are reported as 0"
CASES: Mapping[str, Case] = {
    "images of one class": Case(TASKS["images"], targets(1), "val/accuracy", None),
    "images of no class": Case(
        TASKS["image label sets"], targets(0), "val/map", "undefined, for nothing is of any class: reported as 0"
    ),
    "images of one value": Case(TASKS["image values"], targets(2), "val/pearson", CONSTANT),
    "pixels that do not count": Case(
        TASKS["masked images"], targets(-100), "val/mean_iou", "undefined, for no pixel is of a class: reported as 0"
    ),
    "texts of one class": Case(TASKS["cola"], fields(labels=1), "val/matthews", None),
    "texts without the class that F1 is of": Case(TASKS["mrpc"], fields(labels=0), "val/f1", None),
    "texts of one value": Case(TASKS["regression"], fields(labels=2), "val/spearman", CONSTANT),
    "texts of no class": Case(TASKS["label sets"], fields(labels=-1), "val/map", "undefined, for nothing is of any"),
    "words without labels": Case(TASKS["entities"], fields(labels=-100), "val/f1", NO_ENTITY),
    "no entities": Case(TASKS["entities"], fields(labels=0), "val/f1", NO_ENTITY),
    "questions without answers": Case(
        TASKS["questions"], fields(start_positions=0, end_positions=0), "val/exact_match", None
    ),
    "sentences of one score": Case(
        partial(TASKS["embeddings"], evaluation="similarity"), added(scores=torch.ones(3)), "val/spearman", CONSTANT
    ),
    "sounds of one class": Case(TASKS["sounds"], fields(labels=0), "val/macro_f1", None),
    "speech without words": Case(speech, fields(labels=-100), "val/loss", "reference transcripts are empty, so `wer`"),
    "speech longer than its clip": Case(
        speech, added(labels=torch.full((2, 400), 5)), "val/loss", "the clip a is too short for its transcript"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_is_watched_is_nan_and_the_run_goes_on(tmp_path, name):
    case = CASES[name]
    torch.manual_seed(0)
    module, batch = case.task(config())
    data = DataLoader([case.change(batch)] * 2, batch_size=None)
    watching = [EarlyStopping(case.monitor, patience=5), ModelCheckpoint(tmp_path, monitor=case.monitor)]
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, logger=False, callbacks=watching,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    if case.said is None:
        trainer.fit(module, data, data)
    else:
        with pytest.warns(UserWarning, match=case.said):
            trainer.fit(module, data, data)
    assert trainer.global_step == 4 and watching[1].best_model_score is not None
    assert all(bool(torch.isfinite(value)) for value in trainer.callback_metrics.values())
    assert all(bool(parameter.isfinite().all()) for parameter in module.parameters())
