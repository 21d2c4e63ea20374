"""What `RunRecord` writes of runs of a module that knows nothing of it."""

import json

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from asym_lightning.adapters import quantize_backbone
from asym_lightning.adapters.kernels import plan
from asym_lightning.adapters.kernels.cpu.library import c_library
from asym_lightning.callbacks import RunRecord, run_record
from tests.callbacks.foreign import Foreign, injection, loader, trainer


def fit(folder, module, **options):
    trainer(folder, injection(adapter={"rank": 4}), RunRecord(), **options).fit(module, loader(), loader())
    return json.loads((folder / "record.json").read_text())


class NoFirstLoss(Foreign):
    def training_step(self, batch, batch_idx):
        return None if self.global_step == 0 and batch_idx == 0 else super().training_step(batch, batch_idx)


class Sharded(nn.Parameter):
    """Stands for a parameter of which the process has a part."""


def test_a_test_without_a_fit_says_so_and_names_its_checkpoint(tmp_path):
    assert fit(tmp_path / "fit", Foreign(), enable_checkpointing=True, max_epochs=1)["command"] == "fit"
    (checkpoint,) = (tmp_path / "fit").rglob("*.ckpt")
    assert json.loads((tmp_path / "fit" / "record.json").read_text())["checkpoint"] == str(checkpoint)

    class Tested(Foreign):
        def test_step(self, batch, batch_idx):
            self.log("test/loss", batch[0].mean())

    run = trainer(tmp_path / "test", injection(adapter={"rank": 4}), RunRecord())
    run.test(Tested(), loader(), ckpt_path=checkpoint, verbose=False)
    record = json.loads((tmp_path / "test" / "record.json").read_text())
    assert (record["command"], record["checkpoint"]) == ("test", str(checkpoint))
    assert set(record["metrics"]) == {"test/loss"}


def test_counts_each_parameter_once_and_those_in_the_factors_apart(tmp_path):
    module = Foreign()
    record = fit(tmp_path, module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert record["trained"] == sum(parameter.numel() for parameter in trained)
    assert record["total"] == sum(parameter.numel() for parameter in module.parameters())
    assert (record["trained_A"], record["trained_B"]) == (0, 2 * 4 * 12)
    assert set(record["ranks"].values()) == {4}
    assert (record["monitor"], record["steps"]) == (None, 10)
    assert set(record["metrics"]) == {"train/loss", "val/loss"}


def test_saved_bytes_are_those_that_the_first_forward_pass_keeps(tmp_path):
    module = Foreign()
    record = fit(tmp_path, module, max_epochs=1)
    kept_anyway = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept_anyway:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other takes its place
        return tensor

    module.train().net.norm.eval()  # as it is in the run: frozen normalisation keeps its statistics
    with saved_tensors_hooks(note, lambda tensor: tensor):
        x, y = next(iter(loader()))
        nn.functional.cross_entropy(module(x), y)
    assert record["saved_bytes"] == sum(size for size, _ in kept.values()) > 0


def test_a_first_step_without_a_loss_is_not_counted(tmp_path):
    record = fit(tmp_path, NoFirstLoss())
    assert "saved_bytes" not in record
    assert record["validation"] is None and "val/loss" in record["metrics"]


def test_sharded_parameters_leave_saved_bytes_out(tmp_path):
    module = Foreign()
    module.aux.bias = Sharded(module.aux.bias.data)
    assert "saved_bytes" not in fit(tmp_path, module)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_backbone_has_the_counts_and_saved_bytes_of_a_dense_one(kind, tmp_path):
    pytest.importorskip("bitsandbytes")
    dense, quantized = Foreign(), Foreign()
    quantize_backbone(quantized.net, kind)
    assert any(type(parameter) is not nn.Parameter for parameter in quantized.parameters())
    expected = fit(tmp_path / "dense", dense, max_epochs=1)
    found = fit(tmp_path / "quantized", quantized, max_epochs=1)
    for key in ("trained", "total", "trained_B", "saved_bytes"):
        assert found[key] == expected[key] > 0


def test_nothing_is_counted_after_a_run_that_failed(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(run_record._SavedBytes, "_count", lambda _, tensor: counted.append(tensor) or tensor)
    module = Foreign()

    def fails(batch, batch_idx):
        module(batch[0])
        raise ZeroDivisionError

    module.training_step = fails
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, injection(), RunRecord()).fit(module, loader())
    num_counted = len(counted)
    assert num_counted > 0
    torch.ones(2, requires_grad=True).exp()
    assert len(counted) == num_counted
    assert not (tmp_path / "record.json").exists()


def test_says_by_what_adapters_were_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("ASYM_LIGHTNING_KERNELS", "0")
    c_library.cache_clear()
    monkeypatch.setattr(plan, "FEW_TOKENS", 0)  # for which no kernel is asked
    assert fit(tmp_path / "off", Foreign(), max_epochs=1)["cpu_kernels"] == "torch"
    monkeypatch.setenv("ASYM_LIGHTNING_KERNELS", "1")
    c_library.cache_clear()
    if c_library() is not None:
        assert fit(tmp_path / "on", Foreign(), max_epochs=1)["cpu_kernels"].startswith("C (")
