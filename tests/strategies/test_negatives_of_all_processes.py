"""Texts of all processes are negatives of one another: two come to the weights of one on the same batch."""

import pytest
import torch
import transformers as tf
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import SentenceEncoder
from tests.text_stand_ins import tiny_bert_config
from tests.two_processes import in_two_processes

NUM_PAIRS = 8


def trained(folder, num_processes, chunk_size):
    """What trains, after a step on all pairs."""
    torch.manual_seed(0)
    module = SentenceEncoder(
        tf.BertModel(tiny_bert_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)),
        AdapterConfig(rank=2, targets="all-linear"), chunk_size=chunk_size,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
    )  # fmt: skip
    ids = torch.randint(4, 19, (2, NUM_PAIRS, 6))
    mask = torch.ones(6, dtype=torch.int64)
    pairs = [
        {"anchor_input_ids": a, "anchor_attention_mask": mask, "positive_input_ids": p, "positive_attention_mask": mask}
        for a, p in zip(*ids, strict=True)
    ]
    trainer = Trainer(
        accelerator="cpu", devices=num_processes, strategy="ddp" if num_processes > 1 else "auto", max_steps=1,
        default_root_dir=folder, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(pairs, batch_size=NUM_PAIRS // num_processes))
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def on_both(folder):
    return [trained(folder, 2, chunk_size) for chunk_size in (None, 2)]


@pytest.mark.slow
def test_two_processes_come_to_the_weights_of_one_on_the_same_batch(tmp_path):
    expected = trained(tmp_path, 1, None)
    assert all(weights.any() for weights in expected.values())
    for outcome in in_two_processes(on_both, tmp_path):
        for found in outcome.value:
            for name, weights in expected.items():
                torch.testing.assert_close(found[name], weights, rtol=1e-5, atol=1e-6)
