"""Rows of a run's batches with adapters of their own."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    save_adapters,
)
from asym_lightning.callbacks import RowAdapters
from asym_lightning.data import LoaderOptions, TextFilesDataModule
from asym_lightning.modules import TextClassifier
from tests.text_stand_ins import write_tiny_bert

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
CONFIG = AdapterConfig(rank=2, targets=["q", "v"])


@pytest.fixture
def bert(tmp_path):
    return str(write_tiny_bert(tmp_path / "bert"))


def classifier(bert, adapter=CONFIG):
    torch.manual_seed(0)
    module = TextClassifier(bert, label_names=["no", "yes"], adapter=adapter)
    module.configure_model()
    return module.eval()


@pytest.fixture
def directories(bert, tmp_path):
    for number, name in enumerate(("one", "two")):
        module = classifier(bert)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for p in module.parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape, generator=generator))
        save_adapters(module.backbone, tmp_path / name)
    return {name: tmp_path / name for name in ("one", "two")}


@pytest.fixture
def data(tmp_path):
    tenants = ["two", "one", None, "one", "two"]
    rows = [{"text": "the cat " * (i + 1), "label": "yes", "tenant": name} for i, name in enumerate(tenants)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextFilesDataModule(
        predict=tmp_path / "rows.jsonl", test=tmp_path / "rows.jsonl", adapter_column="tenant",
        label_names=["no", "yes"], cache_dir=tmp_path / "cache", loader=LoaderOptions(eval_batch_size=2),
    )  # fmt: skip


@pytest.mark.parametrize("adapter", [CONFIG, None], ids=["adapted", "plain"])
def test_predict_uses_the_adapter_that_each_row_names(adapter, bert, directories, data, tmp_path):
    module = classifier(bert, adapter)
    callback = RowAdapters(directories)
    trainer = Trainer(callbacks=[callback], default_root_dir=tmp_path, **QUIET)
    found = torch.cat(trainer.predict(module, data))
    position = 0
    for batch in trainer.predict_dataloaders[0]:
        for row, name in enumerate(batch["adapters"]):
            one = classifier(bert)
            one.backbone.classifier.load_state_dict(module.backbone.classifier.state_dict())
            if name:
                load_adapters(one.backbone, directories[name])
            with torch.no_grad():
                expected = one.predict_step(batch, 0)[row]
            torch.testing.assert_close(found[position], expected, rtol=1e-5, atol=1e-5)
            position += 1
    assert all(layer.by_row is None for layer in stacked_layers(callback))
    assert len(trainer.test(module, data, verbose=False)) == 1


def stacked_layers(callback):
    return [layer.adapters for layer in adapter_layers(callback.stack.model).values()]


class Plain(LightningModule):
    """A module that knows nothing of adapters, and batches that hold no names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 3))

    def predict_step(self, batch, batch_idx):
        return self(batch)

    def forward(self, x):
        return self.net(x)


def test_one_adapter_needs_no_names_and_several_do(tmp_path):
    module = Plain()
    for seed in range(2):
        other = Plain()
        inject_adapters(other, AdapterConfig(rank=2, targets=["net.0"], heads=[]))
        nn.init.normal_(next(iter(adapters_by_name(other).values())).factor_B)
        save_adapters(other, tmp_path / str(seed))
    x = torch.randn(3, 4)
    trainer = Trainer(callbacks=[RowAdapters({"a": tmp_path / "1"})], default_root_dir=tmp_path, **QUIET)
    found = torch.cat(trainer.predict(module, DataLoader(x, batch_size=2)))
    torch.testing.assert_close(found, other(x).detach())
    both = RowAdapters({"a": tmp_path / "0", "b": tmp_path / "1"}, column="tenant")
    trainer = Trainer(callbacks=[both], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="`column` 'tenant' of `RowAdapters` is no field of the batches"):
        trainer.predict(Plain(), DataLoader(x))


def test_an_unknown_name_ends_the_run_and_leaves_the_model_as_it_was(bert, directories, data, tmp_path):
    callback = RowAdapters({"one": directories["one"]})
    trainer = Trainer(callbacks=[callback], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="There is no adapter `two`; there are one"):
        trainer.predict(classifier(bert), data)
    assert all(layer.by_row is None for layer in stacked_layers(callback))
