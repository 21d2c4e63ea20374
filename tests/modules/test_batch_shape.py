"""Sizes of batches that are made without data: asked for by name where nobody says them."""

import pytest
import torch
from lightning.pytorch import LightningModule

from asym_lightning.cli.estimate.example_batch import example_batch
from asym_lightning.modules.batch_shape import BatchShape


def test_rows_of_text_are_full_to_the_last_token():
    batch = BatchShape(size=2, length=5).text(longest=5)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (2, 5), "attention_mask": (2, 5),
    }  # fmt: skip
    assert torch.equal(batch["attention_mask"], torch.ones(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="`sequence_length` is 5, but the backbone allows 4"):
        BatchShape(size=2, length=5).text(longest=4)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("size", "sets no `loader.batch_size`: give `--batch-size`"),
        ("length", "sets no `max_length`: give `--sequence-length`"),
        ("target_length", "sets no `max_target_length`: give `--target-length`"),
        ("image_size", "sets no `image_size`: give `--image-size`"),
    ],
)
def test_a_size_that_nobody_says_is_asked_for_and_zero_is_refused(field, message):
    with pytest.raises(ValueError, match=message):
        BatchShape().known(field)
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        BatchShape(**{field: 0}).known(field)


def test_a_task_that_makes_no_batch_is_told_how_to():
    with pytest.raises(ValueError, match=r"batch of LightningModule looks like.*a method `example_batch\(shape\)`"):
        example_batch(LightningModule(), BatchShape(size=1))
