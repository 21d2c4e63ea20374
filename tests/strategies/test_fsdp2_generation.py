"""A language model under FSDP2: parts of it are called one by one, and texts of unequal length are generated."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.dtensor import whole_state_dict
from asym_lightning.modules import InstructionTuner
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.strategies import FSDP2Strategy
from tests.language_models import byte_tokenizer, saved, tiny_llama
from tests.strategies.digits_run import num_processes
from tests.two_processes import in_two_processes


def rows() -> list[dict]:
    ids = torch.randint(5, 300, (4, 10), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :4] = -100
    pairs = zip(ids, labels, strict=True)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": label} for row, label in pairs]


def tune(folder: str) -> dict:
    module = InstructionTuner(
        folder, adapter=AdapterConfig(rank=2, targets=["q", "v"]), decoding=Decoding(max_new_tokens=6), chunk_size=3,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=num_processes(), strategy=FSDP2Strategy() if num_processes() > 1 else "auto",
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
    )  # fmt: skip
    seed_everything(0, verbose=False)
    data = DataLoader(rows(), batch_size=4 // num_processes())
    trainer.fit(module, data, data)
    state = module.state_dict()
    names = [name for name in state if ".factor_" in name]
    return {"loss": float(trainer.callback_metrics["val/loss"]), "state": whole_state_dict(state, names)}


def test_two_processes_tune_and_generate_as_one_does(tmp_path):
    folder = saved(tmp_path / "llama", tiny_llama(320), byte_tokenizer())
    outcomes = in_two_processes(tune, folder)
    expected = tune(folder)
    for outcome in outcomes:
        assert outcome.value["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        for name, tensor in expected["state"].items():
            torch.testing.assert_close(outcome.value["state"][name], tensor, rtol=0, atol=1e-6)
