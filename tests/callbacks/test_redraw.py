"""B trained on one A after another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from safetensors.torch import load_file

from asym_lightning.adapters import adapters_by_name, load_adapters, merge_adapters, save_adapters
from asym_lightning.callbacks import AdapterCheckpoint, CalibrateA, FreezeA, RedrawA
from tests.callbacks.foreign import Foreign, build_net, injection, loader, trainer

STEPS_A_LINK = 4


class Recorder(Callback):
    """Factors, and what the net gives, after every step; it comes after the other callbacks."""

    def __init__(self) -> None:
        self.A, self.B, self.ranks, self.outputs = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        adapter = pl_module.net.first.adapters["all"]
        self.A.append(adapter.factor_A.detach().clone())
        self.B.append(adapter.factor_B.detach().clone())
        self.ranks.append(adapter.rank)


def fit(path, *callbacks, adapter=None, module=None, **options):
    run = trainer(path, injection(adapter=adapter or {}), *callbacks, **{"max_epochs": 3, **options})
    module = module or Foreign()
    seed_everything(0, verbose=False)
    run.fit(module, loader(), loader())
    return run, module


def redraw(num_links: int = 3, **options) -> RedrawA:
    return RedrawA(num_links, **{"every_n_steps": STEPS_A_LINK, **options})


@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_A_coordinate", "hB_zero_A_whitened_gradient"])
def test_each_link_trains_new_columns_of_B_and_leaves_the_old_ones_as_they_are(scheme, tmp_path):
    class Decaying(Foreign):
        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)

    recorder = Recorder()
    callbacks = [CalibrateA()] if "gradient" in scheme else []
    fit(tmp_path, *callbacks, redraw(), FreezeA(), recorder, adapter={"scheme": scheme}, module=Decaying())
    assert recorder.ranks == [2] * 3 + [4] * 4 + [6] * 8  # of 15 steps
    for step in range(1, 15):
        link = min(step // STEPS_A_LINK, 2)
        before, after = recorder.B[step - 1], recorder.B[step]
        assert torch.equal(after[:, : 2 * link], before[:, : 2 * link])
        assert not torch.equal(after[:, 2 * link : 2 * link + 2], before[:, 2 * link : 2 * link + 2])
        assert not after[:, recorder.ranks[step] :].any()
        present = recorder.ranks[step - 1]
        assert torch.equal(recorder.A[step][:present], recorder.A[step - 1][:present])
    A = recorder.A[-1]
    torch.testing.assert_close(A @ A.T, torch.eye(6), atol=1e-5, rtol=0)


def test_a_new_link_starts_without_changing_the_function(tmp_path):
    class Watching(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step == STEPS_A_LINK:
                new = pl_module.net.first.adapters["all"].B[:, 2:]
                assert new.shape[1] == 2 and not new.any()

    fit(tmp_path, redraw(), Watching())


def test_clipping_does_not_count_gradients_of_earlier_links(tmp_path):
    class Watching(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            grad = pl_module.net.first.adapters["all"].factor_B.grad
            if grad is not None and trainer.global_step > STEPS_A_LINK:
                assert not grad[:, :2].any() and grad[:, 2:4].any()

    fit(tmp_path, redraw(2), Watching(), gradient_clip_val=0.1)


def test_the_chain_is_one_adapter_which_merges_loads_in_peft_and_needs_only_B_and_a_seed(tmp_path):
    peft = pytest.importorskip("peft")
    _, module = fit(tmp_path, redraw())
    module.eval()
    x = torch.randn(5, 12)
    expected = module.net(x)
    save_adapters(module.net, tmp_path / "full")
    save_adapters(module.net, tmp_path / "compact", include_frozen=False)
    assert not any("lora_A" in name for name in load_file(tmp_path / "compact" / "adapter_model.safetensors"))
    other = build_net().eval()
    other.norm.load_state_dict(module.net.norm.state_dict())
    load_adapters(other, tmp_path / "compact")
    torch.testing.assert_close(other(x), expected)
    assert {adapter.rank for adapter in adapters_by_name(other).values()} == {6}
    host = build_net().eval()
    host.norm.load_state_dict(module.net.norm.state_dict())
    torch.testing.assert_close(peft.PeftModel.from_pretrained(host, tmp_path / "full").eval()(x), expected)
    merge_adapters(module.net)
    torch.testing.assert_close(module.net(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_A_gradient"])
def test_a_resumed_run_ends_with_the_same_bits(scheme, tmp_path):
    def callbacks():
        chain = [*([CalibrateA()] if "gradient" in scheme else []), redraw()]
        return [*chain, AdapterCheckpoint(tmp_path / "c", filename="{step}", save_top_k=-1, every_n_train_steps=3)]

    options = {"enable_checkpointing": True, "adapter": {"scheme": scheme}}
    _, whole = fit(tmp_path, *callbacks(), **options)
    for step in (3, 6, 9):
        again = [injection(adapter={"scheme": scheme}), *callbacks()]
        run = trainer(tmp_path, *again, max_epochs=3, enable_checkpointing=True)
        resumed = Foreign()
        run.fit(resumed, loader(), loader(), ckpt_path=tmp_path / "c" / f"step={step}.ckpt")
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (step, name)


def test_a_stalled_metric_begins_the_next_link(tmp_path):
    class Stalling(Foreign):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", 1.0)

    chain = RedrawA(3, monitor="val/score", mode="max", patience=1)
    _, module = fit(tmp_path, chain, module=Stalling(), max_epochs=2)
    assert chain.num_done == 1
    assert {adapter.rank for adapter in adapters_by_name(module).values()} == {4}


def test_the_same_callback_begins_anew_with_another_module(tmp_path):
    chain = redraw()
    _, first = fit(tmp_path, chain)
    _, second = fit(tmp_path, chain)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    with pytest.raises(RuntimeError, match=r"no room for 3 links of rank 6 in `first.all`.* has been through a chain"):
        trainer(tmp_path, injection(), chain).fit(first, loader(), loader())


def test_what_is_no_chain_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="`num_links` must be at least 2"):
        RedrawA(1, every_n_steps=1)
    with pytest.raises(ValueError, match="Give one of `every_n_steps` and `monitor`"):
        RedrawA(2)
    with pytest.raises(ValueError, match="`every_n_steps` must be at least 1"):
        RedrawA(2, every_n_steps=0)
    with pytest.raises(ValueError, match="trains B on one frozen A after another, but the scheme is hB_zero_hA_rand"):
        fit(tmp_path, redraw(), adapter={"scheme": "hB_zero_hA_rand"})
    with pytest.raises(ValueError, match="`max_rank` is 14, but `first`"):
        fit(tmp_path, redraw(7))
    with pytest.raises(RuntimeError, match="RedrawA finds no adapters"):
        trainer(tmp_path, redraw()).fit(Foreign(), loader())
