"""Figures of the monitor against dense formulas, and where they go."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import BNormMonitor, Milestones, RankScheduler
from asym_lightning.core.norms_file import STATISTICS, read_norms
from tests.callbacks.foreign import Foreign, injection, loader, trainer

NAMES = ("first.all", "second.all")


class Dense(Callback):
    """The same figures by dense formulas, in float64."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.rows: dict[tuple[int, str], dict[str, float]] = {}
        self.before: dict[str, torch.Tensor] = {}
        self.gradients: dict[str, float] = {}

    def on_train_start(self, trainer, pl_module) -> None:
        self.before = {n: a.delta_weight().detach().double() for n, a in adapters_by_name(pl_module.net).items()}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        adapters = adapters_by_name(pl_module.net)
        self.gradients = {n: a.factor_B.grad.norm().item() for n, a in adapters.items()}

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if trainer.global_step % self.every:
            return
        for name, adapter in adapters_by_name(pl_module.net).items():
            update = adapter.delta_weight().detach().double()
            S, S_B = torch.linalg.svdvals(update), torch.linalg.svdvals(adapter.B.detach().double())
            shares = S / S.sum()
            weight = pl_module.net.get_submodule(name.removesuffix(".all")).weight.double()
            self.rows[trainer.global_step, name] = {
                "B_frobenius": S_B.norm().item(),
                "B_spectral": S_B.max().item(),
                "update_frobenius": S.norm().item(),
                "update_spectral": S.max().item(),
                "stable_rank": (S.square().sum() / S.max() ** 2).item(),
                "effective_rank": math.exp(torch.special.entr(shares).sum()),
                "relative_norm": (S.norm() / weight.norm()).item(),
                "B_gradient": self.gradients[name],
                "change": (update - self.before[name]).norm().item(),
            }
            self.before[name] = update


@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_hA_rand", "hA_he_B_rand"])
def test_every_figure_equals_a_dense_svd(scheme, tmp_path):
    monitor, dense = BNormMonitor(every_n_steps=2, file=tmp_path / "norms.csv"), Dense(2)
    if scheme.startswith("hA"):
        dense.on_before_optimizer_step = lambda *args: dense.gradients.update(dict.fromkeys(NAMES, math.nan))
    schedule = RankScheduler(Milestones({3: 4, 7: 2}))
    callbacks = [injection(adapter={"rank": 3, "scheme": scheme}), schedule, dense, monitor]
    trainer(tmp_path, *callbacks).fit(Foreign(), loader())
    rows = {(row["step"], row["adapter"]): row for row in read_norms(tmp_path / "norms.csv")}
    assert set(rows) == {(step, name) for step in (2, 4, 6, 8, 10) for name in (*NAMES, "total")}
    for key, expected in dense.rows.items():
        for statistic in STATISTICS:
            found = rows[key][statistic]
            assert found == pytest.approx(expected[statistic], rel=1e-5, abs=1e-6, nan_ok=True), (key, statistic)
        assert len(rows[key]["singular_values"]) == (3 if key[0] < 3 else 4 if key[0] < 7 else 2)


def test_totals_are_those_of_all_updates_together(tmp_path):
    monitor = BNormMonitor(every_n_steps=5, file=tmp_path / "norms.csv")
    module = Foreign()
    trainer(tmp_path, injection(), monitor, max_epochs=1).fit(module, loader())
    rows = {row["adapter"]: row for row in read_norms(tmp_path / "norms.csv")}
    total, first, second = (rows[name] for name in ("total", *NAMES))
    weights = torch.stack([module.net.first.weight.norm(), module.net.second.weight.norm()]).norm().item()
    for name in ("B_frobenius", "update_frobenius", "B_gradient", "change"):
        assert total[name] == pytest.approx(math.hypot(first[name], second[name]))
    assert total["update_spectral"] == max(first["update_spectral"], second["update_spectral"])
    assert total["stable_rank"] == pytest.approx((first["stable_rank"] + second["stable_rank"]) / 2)
    assert total["relative_norm"] == pytest.approx(total["update_frobenius"] / weights)


def test_watching_changes_nothing(tmp_path):
    states = []
    for callbacks in ([], [BNormMonitor(every_n_steps=1, file=tmp_path / "norms.csv")]):
        module = Foreign()
        torch.manual_seed(0)
        trainer(tmp_path, injection(), *callbacks).fit(module, loader())
        states.append(module.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


# Where the figures go


def test_csv_logger_and_the_file_beside_it(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, injection(), BNormMonitor(every_n_steps=5), logger=logger).fit(Foreign(), loader())
    assert "b_norm/first.all/stable_rank" in (tmp_path / "metrics.csv").read_text()
    assert len(list(read_norms(tmp_path / "b_norms.csv"))) == 2 * 3


def test_tensorboard_gets_numbers_and_histograms(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer(tmp_path, injection(), BNormMonitor(every_n_steps=5), logger=logger).fit(Foreign(), loader())
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("b_norm/total/update_frobenius")] == [5, 10]
    assert [h.step for h in events.Histograms("b_norm/first.all/singular_values")] == [5, 10]


def test_wandb_gets_numbers_and_histograms(tmp_path, monkeypatch):
    sent = []

    class Wandb(WandbLogger):
        def __init__(self) -> None:
            Logger.__init__(self)

        name = version = property(lambda self: "x")
        save_dir = property(lambda self: str(tmp_path))
        experiment = property(lambda self: None)

        def log_metrics(self, metrics, step=None) -> None:
            sent.append((step, metrics))

        def log_hyperparams(self, *args, **kwargs) -> None: ...

        def after_save_checkpoint(self, *args) -> None: ...

        def finalize(self, status) -> None: ...

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Histogram=lambda values: ("histogram", values)))
    trainer(tmp_path, injection(), BNormMonitor(every_n_steps=5), logger=Wandb()).fit(Foreign(), loader())
    histograms = [(step, m) for step, m in sent if "b_norm/first.all/singular_values" in m]
    assert [step for step, _ in histograms] == [5, 10]
    kind, values = histograms[0][1]["b_norm/first.all/singular_values"]
    assert kind == "histogram" and len(values) == 2
    assert any("b_norm/total/change" in metrics for _, metrics in sent)


class Failing(Logger):
    """A logger whose disk is full."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    name = version = property(lambda self: "failing")

    def log_metrics(self, metrics, step=None) -> None:
        if any(name.startswith("b_norm/") for name in metrics):
            self.attempts += 1
            raise OSError("no space left on device")

    def log_hyperparams(self, *args, **kwargs) -> None: ...


def test_a_logger_that_fails_is_warned_of_once_and_stops_nothing(tmp_path):
    failing, working = Failing(), CSVLogger(tmp_path, name="", version="")
    run = trainer(tmp_path, injection(), BNormMonitor(every_n_steps=2), logger=[failing, working])
    with pytest.warns(UserWarning, match=r"Failing failed \(OSError: no space left") as warned:
        run.fit(Foreign(), loader())
    assert run.global_step == 10
    assert failing.attempts == 1
    assert sum("Failing failed" in str(w.message) for w in warned) == 1
    assert "b_norm/total/change" in (tmp_path / "metrics.csv").read_text()


def test_a_file_that_cannot_be_written_is_warned_of_and_stops_nothing(tmp_path):
    (tmp_path / "taken").write_text("")
    run = trainer(tmp_path, injection(), BNormMonitor(every_n_steps=2, file=tmp_path / "taken" / "norms.csv"))
    with pytest.warns(UserWarning, match=r"norms\.csv"):
        run.fit(Foreign(), loader())
    assert run.global_step == 10


def test_one_transfer_to_the_host_a_log(tmp_path, monkeypatch):
    from asym_lightning.callbacks import norm_monitor

    calls = []
    original = norm_monitor.to_cpu
    monkeypatch.setattr(norm_monitor, "to_cpu", lambda vectors: calls.append(len(vectors)) or original(vectors))
    trainer(tmp_path, injection(), BNormMonitor(every_n_steps=5, file="")).fit(Foreign(), loader())
    at_start, *logs = calls
    assert at_start == 2 and logs == [8, 8]


def test_no_steps_between_logs_is_refused():
    with pytest.raises(ValueError, match="`every_n_steps` must be at least 1, not 0"):
        BNormMonitor(0)
