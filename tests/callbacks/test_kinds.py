"""Every kind of adapted layer is watched, changes its rank and comes back from a checkpoint in a run of a Trainer."""

import pytest
import torch
import transformers as tf
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from asym_lightning.adapters import adapter_layers, adapters_by_name
from asym_lightning.callbacks import BNormMonitor, Milestones, RankScheduler
from asym_lightning.core.norms_file import read_norms
from tests.callbacks.foreign import injection, trainer

IDS = torch.arange(48).view(8, 6) % 20


class Layers(nn.Module):
    """A table, convolutions in one to three dimensions, one of them in groups, and attention of torch's own."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.line = nn.Conv1d(12, 12, 3, padding=1, groups=2)
        self.plane, self.space = nn.Conv2d(12, 12, 1), nn.Conv3d(12, 12, (1, 1, 3), padding=(0, 0, 1))
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, ids):
        x = self.line(self.table(ids).mT)[:, :, None]
        x = self.space(self.plane(x)[:, :, None]).flatten(2).mT
        return self.attention(x, x, x)[0]


def experts():
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    return tf.MixtralForCausalLM(tf.MixtralConfig(**sizes, **heads, pad_token_id=0))


class Module(LightningModule):
    def __init__(self, build):
        super().__init__()
        torch.manual_seed(0)
        self.net = build()

    def training_step(self, ids):
        out = self.net(ids)
        return getattr(out, "logits", out).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def fit(build, targets, folder, **options):
    module = Module(build)
    adapter = {"rank": 2, "targets": targets}
    callbacks = [injection(adapter=adapter, heads=[]), RankScheduler(Milestones({2: 3}))]
    callbacks.append(BNormMonitor(every_n_steps=4, file=folder / "norms.csv"))
    run = trainer(folder, *callbacks, max_epochs=2)
    run.fit(module, DataLoader(IDS, batch_size=4), **options)
    return module, run


@pytest.mark.parametrize(
    ("build", "targets"),
    [(Layers, ["table", "line", "plane", "space", "q", "v"]), (experts, ["experts"])],
)
def test_it_is_watched_grows_and_comes_back(build, targets, tmp_path):
    module, run = fit(build, targets, tmp_path)
    rows = {row["adapter"]: row for row in read_norms(tmp_path / "norms.csv")}
    adapters = adapters_by_name(module.net)
    assert rows.keys() == {*adapters, "total"} and len(adapters) >= len(targets)
    for name, adapter in adapters.items():
        assert adapter.rank == 3
        S = torch.linalg.svdvals((adapter.scaling * adapter.B @ adapter.A).detach().double())
        assert rows[name]["update_frobenius"] == pytest.approx(S.norm().item(), rel=1e-5)
        assert rows[name]["update_spectral"] == pytest.approx(S.max().item(), rel=1e-5)
    run.save_checkpoint(tmp_path / "last.ckpt")
    again, _ = fit(build, targets, tmp_path / "again", ckpt_path=tmp_path / "last.ckpt")
    deltas = [[layer.delta_weight() for layer in adapter_layers(m.net).values()] for m in (module, again)]
    assert all(delta.any() for delta in deltas[0])
    torch.testing.assert_close(*deltas, rtol=0, atol=0)
