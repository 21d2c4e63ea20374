"""The reference model is asked once, and what it said is never taken for another set or model."""

import pickle
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import LoaderOptions, PreferenceDataModule
from asym_lightning.modules import PreferenceTuner
from asym_lightning.modules import precomputed_reference as module
from asym_lightning.modules.answer_tokens import AnswerTokens
from asym_lightning.modules.reference_model import as_reference
from tests.language_models import byte_tokenizer, tiny_llama, write_jsonl

ADAPTER = AdapterConfig(rank=2, targets=["q", "v"])
PAIRS = [{"prompt": f"{i} ", "chosen": "b" * (i % 5 + 1), "rejected": "c" * (i % 3 + 2)} for i in range(12)]


class Losses(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"])


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Trains for two epochs, and returns the losses and how often the reference was asked."""

    def run(precompute, loss="dpo", pairs=PAIRS, width=32, seed=0):
        asked = []
        monkeypatch.setattr(module, "as_reference", lambda backbone: asked.append(backbone) or original(backbone))
        seed_everything(0)
        tokenizer = byte_tokenizer()
        tuner = PreferenceTuner(
            tiny_llama(len(tokenizer), width=width, layers=1), replace(ADAPTER, seed=seed),
            loss=loss, precompute_reference=precompute, optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0),
        )  # fmt: skip
        losses = Losses()
        file = write_jsonl(tmp_path / "pairs.jsonl", pairs)
        data = PreferenceDataModule(
            train=file, val=file, template="none", tokenizer=tokenizer, cache_dir=tmp_path / "cache",
            loader=LoaderOptions(batch_size=4, eval_batch_size=4),
        )  # fmt: skip
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path, callbacks=[losses],
        )  # fmt: skip
        trainer.fit(tuner, data)
        return torch.stack(losses.seen), len(asked), trainer.callback_metrics["val/loss"]

    original = module.as_reference
    return run


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_losses_are_those_of_asking_each_step(fit, loss):
    expected, num_asked, expected_val = fit(False, loss)
    assert num_asked == 2 * (3 + 3)  # epochs, of training and of validation
    found, num_asked, found_val = fit(True, loss)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_val, expected_val, rtol=1e-6, atol=1e-6)
    assert num_asked == 1  # training and validation are the same pairs
    again, num_asked, _ = fit(True, loss, seed=1)  # another A has the same reference
    assert num_asked == 0 and not torch.equal(again, found)


def test_another_set_and_another_model_are_asked_about_anew(fit):
    fit(True)
    assert fit(True)[1] == 0
    assert fit(True, pairs=PAIRS[:8])[1] == 1
    changed = [{**PAIRS[0], "chosen": "d"}, *PAIRS[1:]]
    expected = fit(False, pairs=changed)[0]
    found, num_asked, _ = fit(True, pairs=changed)
    assert num_asked == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert fit(True, width=16)[1] == 1


def test_a_damaged_file_is_computed_anew(fit, tmp_path):
    fit(True)
    (file,) = (tmp_path / "cache").glob("*.reference.npy")
    file.write_bytes(file.read_bytes()[:-9])
    assert fit(True)[1] == 1


def test_a_loss_without_a_reference_has_nothing_to_ask(fit):
    assert fit(True, "simpo")[1] == 0


def test_what_has_no_rows_is_refused():
    tokenizer = byte_tokenizer()
    tuner = PreferenceTuner(tiny_llama(len(tokenizer), layers=1), ADAPTER, precompute_reference=True)
    tuner.tokenizer = tokenizer
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="`precompute_reference: true` takes a `PreferenceDataModule`"):
        trainer.fit(tuner, torch.utils.data.DataLoader([0]))


def test_what_one_model_said_is_not_taken_for_another_s(tmp_path):
    tokenizer = byte_tokenizer()
    file = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    data = PreferenceDataModule(train=file, template="none", tokenizer=tokenizer, cache_dir=tmp_path)
    found = []
    for width in (32, 16):
        torch.manual_seed(0)
        tuner = PreferenceTuner(tiny_llama(len(tokenizer), width=width), ADAPTER, precompute_reference=True)
        Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False).fit(tuner, data)
        data.rows["train"] = pickle.loads(
            pickle.dumps(data.rows["train"])
        )  # as a process that prepares batches gets them
        batch = next(iter(data.train_dataloader()))
        assert any("reference" in field for field in batch)
        found.append(tuner.reference_sums(batch, AnswerTokens.of_pairs(batch))[0])
        with as_reference(tuner.backbone):
            expected = tuner.answer_sums(AnswerTokens.of_pairs(batch)).chunk(2)[0]
        torch.testing.assert_close(found[-1], expected, rtol=1e-6, atol=1e-5)
    assert not torch.allclose(*found)
