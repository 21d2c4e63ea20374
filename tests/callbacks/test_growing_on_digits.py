"""Growing from rank 2 to 8 in mid-course against rank 8 throughout, on the rotated digits."""

from __future__ import annotations

import statistics

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from asym_lightning.adapters import AdapterConfig
from asym_lightning.callbacks import Milestones, RankScheduler
from asym_lightning.data import DigitsDataModule
from asym_lightning.modules import ImageClassifier, WarmupSchedule

SEEDS = (0, 1, 2)
NUM_STEPS = 300


def accuracy(seed: int, ranks: dict[int, int]) -> float:
    """Test accuracy of the quickstart's run with a schedule of ranks."""
    seed_everything(seed, verbose=False)
    module = ImageClassifier(
        "vit_digits",
        num_classes=10,
        adapter=AdapterConfig(rank=8, alpha=16, seed=seed),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0),
        scheduler=WarmupSchedule(warmup=0.1),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=NUM_STEPS,
        callbacks=[RankScheduler(Milestones(ranks))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = DigitsDataModule(angles=[180], num_train=500)
    trainer.fit(module, data)
    return trainer.test(module, data, verbose=False)[0]["test/accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [60, 150])
def test_growing_ends_within_noise_of_the_full_rank_throughout(step):
    full = [accuracy(seed, {0: 8}) for seed in SEEDS]
    grown = [accuracy(seed, {0: 2, step: 8}) for seed in SEEDS]
    print(f"rank 8 throughout {full}, 2 -> 8 at step {step} {grown}")
    # The standard error of the difference of two means of three runs, from 400 test images and the spread of seeds.
    noise = (statistics.variance(full) / 3 + statistics.variance(grown) / 3 + 2 * 0.15 * 0.85 / 400 / 3) ** 0.5
    assert statistics.mean(grown) > statistics.mean(full) - 2 * noise
