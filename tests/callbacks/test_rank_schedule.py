"""Schedules of the rank, through a Trainer."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, load_adapters, save_adapters
from asym_lightning.adapters.rank.groups import rank_groups
from asym_lightning.adapters.rank.policies import Moment
from asym_lightning.callbacks import Budget, Energy, FreezeA, GrowOnStall, Milestones, RankPolicy, RankScheduler
from asym_lightning.data import DigitsDataModule
from asym_lightning.lifecycle.callback_methods import asked_config
from asym_lightning.modules import ImageClassifier
from tests.callbacks.foreign import Foreign, build_net, injection, loader, trainer


class Ranks(Callback):
    """Ranks of both layers after every step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.seen.append(tuple(a.rank for a in adapters_by_name(pl_module.net).values()))


def fit(path, policy: RankPolicy, *callbacks, adapter=None, module=None, **options):
    ranks = Ranks()
    module = module or Foreign()
    run = trainer(path, RankScheduler(policy), injection(adapter=adapter or {}), *callbacks, ranks, **options)
    run.fit(module, loader(), loader())
    return module, ranks.seen


def test_milestones_by_steps_grow_and_shrink_and_parameters_stay_the_same_objects(tmp_path):
    class SameObjects(Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            self.before = [id(p) for p in pl_module.parameters()]

        def on_train_end(self, trainer, pl_module) -> None:
            assert self.before == [id(p) for p in pl_module.parameters()]

    _, seen = fit(tmp_path, Milestones([(0, 1), (4, 6), (7, 3)]), SameObjects())
    assert seen == [(1, 1)] * 3 + [(6, 6)] * 3 + [(3, 3)] * 4


def test_milestones_by_epochs(tmp_path):
    _, seen = fit(tmp_path, Milestones({1: 4}, unit="epochs"))
    assert seen == [(2, 2)] * 5 + [(4, 4)] * 5


def test_accumulated_gradients_count_as_one_step(tmp_path):
    _, seen = fit(tmp_path, Milestones({2: 4}), accumulate_grad_batches=2, max_epochs=1)
    assert seen == [(2, 2)] * 3 + [(4, 4)] * 2


def test_room_is_made_whatever_the_order_of_callbacks_and_only_where_needed(tmp_path):
    module, scheduler = Foreign(), RankScheduler(Milestones({3: 6}))
    trainer(tmp_path, injection(), scheduler).fit(module, loader())
    assert all(a.max_rank == 6 for a in adapters_by_name(module.net).values())
    run = trainer(tmp_path, RankScheduler(Milestones({3: 1})))
    config = AdapterConfig(rank=2, targets=["first"])
    assert asked_config(run, config) is config


def test_room_is_made_in_a_module_that_adapts_itself_and_its_checkpoint_rebuilds_it(tmp_path):
    module = ImageClassifier("vit_digits", num_classes=10, adapter=AdapterConfig(rank=2, targets=["q"]))
    run = trainer(tmp_path, RankScheduler(Milestones({2: 5})), max_steps=3)
    run.fit(module, DigitsDataModule(num_train=100))
    run.save_checkpoint(tmp_path / "x.ckpt")
    assert {a.rank for a in adapters_by_name(module.backbone).values()} == {5}
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert {a.rank for a in adapters_by_name(loaded.backbone).values()} == {5}


def test_energy_keeps_the_share_of_every_update_and_no_more_rank_than_that_takes(tmp_path):
    spectra = {}

    class Before(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
            if trainer.global_step == 4:  # grown spectra, one step before they are cut
                spectra.update({n: g.singular_values for n, g in rank_groups(pl_module.net).items()})

    module, seen = fit(tmp_path, Energy(0.9, every_n_steps=4), Before(), adapter={"rank": 6}, max_epochs=1)
    assert seen[:3] == [(6, 6)] * 3
    for name, group in rank_groups(module.net).items():
        energy = spectra[name].square()
        assert len(spectra[name]) == group.rank
        assert group.rank < 6
        assert energy.sum() > 0


def test_budget_ends_at_its_total_shared_out_by_singular_value(tmp_path):
    module, seen = fit(tmp_path, Budget(5, start_step=2, end_step=8, every_n_steps=2), adapter={"rank": 6})
    totals = [sum(ranks) for ranks in seen]
    assert totals[:3] == [12, 12, 12] and totals[7:] == [5, 5, 5]
    assert totals == sorted(totals, reverse=True)
    assert all(rank >= 1 for ranks in seen for rank in ranks)
    groups = rank_groups(module.net)
    assert sum(g.rank for g in groups.values()) == 5


def test_budget_gives_ranks_to_the_largest_singular_values():
    net = build_net()
    inject_adapters(net, AdapterConfig(rank=4, targets=["first", "second"]))
    groups = rank_groups(net)
    for group, sizes in zip(groups.values(), ([8.0, 7.0, 6.0, 0.1], [5.0, 0.3, 0.2, 0.1]), strict=True):
        group.adapters[0].factor_B.data[:4] = torch.diag(torch.tensor(sizes))
    policy = Budget(5, end_step=1, every_n_steps=1)
    assert policy.wanted_ranks(Moment("step", 1, 0, {}), groups) == {"first.all": 3, "second.all": 2}


def test_a_stalled_metric_grows_the_rank(tmp_path):
    class Stalling(Foreign):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", [1.0, 2.0, 2.0, 2.0, 2.0][self.current_epoch])

    policy = GrowOnStall("val/score", mode="max", patience=1, max_rank=5)
    _, seen = fit(tmp_path, policy, module=Stalling(), max_epochs=5)
    # It stalls after the third epoch; the count starts anew, so the next look sets the best and the one after stalls.
    assert seen[::5] == [(2, 2), (2, 2), (2, 2), (4, 4), (4, 4)]


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (Milestones({0: 2, 3: 4}), [("start", 0), ("step", 3)]),
        (Energy(every_n_steps=2), [("step", 2), ("step", 4)]),
        (Budget(total=6, start_step=1, end_step=4, every_n_steps=3), [("start", 0), ("step", 3), ("step", 4)]),
        (GrowOnStall("val/loss", max_rank=4), [("validation", 5)]),
    ],
)
def test_processes_agree_on_ranks_only_where_they_may_change(policy, asked, tmp_path, monkeypatch):
    moments, sent = [], []

    class WithStrategy(Callback):
        def on_fit_start(self, trainer, pl_module) -> None:
            broadcast, wanted = trainer.strategy.broadcast, policy.wanted_ranks

            def count(value, *args):
                if type(value) is dict:
                    sent.append(moments[-1])
                return broadcast(value, *args)

            def ask(moment, groups):
                moments.append((moment.event, moment.step))
                return wanted(moment, groups)

            monkeypatch.setattr(trainer.strategy, "broadcast", count)
            monkeypatch.setattr(policy, "wanted_ranks", ask)

    fit(tmp_path, policy, WithStrategy(), adapter={"rank": 4}, max_epochs=1)
    assert sent == asked


def test_a_metric_that_was_never_logged_is_an_error_that_lists_those_that_were(tmp_path):
    with pytest.raises(RuntimeError, match=r"'val/lss' was never logged; logged are: .*val/loss"):
        fit(tmp_path, GrowOnStall("val/lss", max_rank=4))


def test_a_policy_of_ones_own(tmp_path):
    class Alternate(RankPolicy):
        max_rank = 3

        def wanted_ranks(self, moment, groups):
            return {"second.all": 1 + moment.step % 3} if moment.event == "step" else {}

    _, seen = fit(tmp_path, Alternate(), max_epochs=1)
    assert seen == [(2, 2), (2, 3), (2, 1), (2, 2), (2, 3)]


def test_a_frozen_A_may_be_rotated_by_the_schedule_and_by_nothing_else(tmp_path):
    fit(tmp_path, Milestones({4: 1, 8: 3}), FreezeA(after_steps=2), adapter={"scheme": "hB_zero_hA_rand"})


def test_the_adapter_file_has_the_active_rank(tmp_path):
    module, _ = fit(tmp_path, Milestones({4: 5}))
    save_adapters(module.net, tmp_path / "adapter")
    net = build_net()
    load_adapters(net, tmp_path / "adapter")
    assert {a.rank for a in adapters_by_name(net).values()} == {5}
    for name in ("first", "second"):
        mine, theirs = (net.get_submodule(name), module.net.get_submodule(name))
        torch.testing.assert_close(mine.delta_weight(), theirs.delta_weight())


def test_every_change_of_rank_is_logged(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    fit(tmp_path, Milestones({4: 5}), logger=logger)
    with open(tmp_path / "metrics.csv") as file:
        rows = [(row["step"], row["rank/total"], row["rank/first.all"]) for row in csv.DictReader(file)]
    assert [row for row in rows if row[1]] == [("0", "4.0", "2.0"), ("4", "10.0", "5.0")]


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Milestones([(5, 2), (3, 4)]),
            r"`ranks` must go forwards in time from 0 on, got milestones at \[5, 3\]",
        ),
        (lambda: Milestones([(5, 2), (5, 4)]), "forwards in time"),
        (lambda: Milestones({-1: 2}), "forwards in time"),
        (lambda: Milestones({}), "`ranks` has no milestones"),
        (lambda: Milestones({1: 0}), "`ranks` must be at least 1, got 0 at 1 steps"),
        (lambda: Milestones({1: 1}, unit="days"), "`unit` must be one of steps, epochs, not 'days'"),
        (lambda: Energy(0.0), r"`share` must be in \(0, 1\]"),
        (lambda: Energy(every_n_steps=0), "`every_n_steps` must be at least 1"),
        (lambda: Budget(4, start_step=9, end_step=9), "`end_step` must come after `start_step` 9, got 9"),
        (lambda: Budget(0, end_step=9), "`total` must be at least 1"),
        (lambda: GrowOnStall("x", max_rank=0), "`max_rank` must be at least 1"),
    ],
)
def test_bad_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_beyond_what_a_layer_allows_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"`max_rank` is 13, but `first` \(all\) is 12 x 12 and allows at most 12"):
        fit(tmp_path, Milestones({100: 13}))


def test_a_schedule_without_room_in_a_model_that_was_adapted_before_is_refused(tmp_path):
    module = Foreign()
    inject_adapters(module.net, AdapterConfig(rank=2, targets=["first"]))
    run = trainer(tmp_path, RankScheduler(Milestones({100: 4})))
    with pytest.raises(ValueError, match=r"asks for rank 4, but `.*first\.all` has room for 2 and its layer allows"):
        run.fit(module, loader())
    assert run.global_step == 0


def test_a_budget_smaller_than_the_number_of_adapters_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="`total` is 1, but there are 2 adapters"):
        fit(tmp_path, Budget(1, end_step=5))


def test_a_schedule_of_nothing_and_two_schedules_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="finds no adapters"):
        trainer(tmp_path, RankScheduler(Milestones({1: 2}))).fit(Foreign(), loader())
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `RankScheduler`"):
        fit(tmp_path, Milestones({1: 2}), RankScheduler(Milestones({1: 2})))


def test_something_that_is_no_policy_is_refused():
    with pytest.raises(TypeError, match="`policy` must be a RankPolicy"):
        RankScheduler({100: 8})


@given(total=st.integers(1, 50), initial=st.integers(1, 200), start=st.integers(0, 100), length=st.integers(1, 100))
def test_a_budget_never_rises_and_lands_on_its_total(total, initial, start, length):
    policy = Budget(total, start_step=start, end_step=start + length)
    totals = [policy.total_at(step, initial=initial) for step in range(start + length + 2)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == initial
    assert totals[-1] == min(total, initial)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=10), st.floats(0.01, 1))
def test_energy_is_the_smallest_rank_that_keeps_the_share(values, share):
    S = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = Energy(share).smallest_rank(S)
    total = S.square().sum()
    assert S[:rank].square().sum() >= share * total * (1 - 1e-12)
    if total > 0 and rank > 1:
        assert S[: rank - 1].square().sum() < share * total


def test_the_configuration_is_changed_in_nothing_but_the_room():
    config = AdapterConfig(rank=2, rank_pattern={"q": 3})
    roomy = asked_config(trainer(".", RankScheduler(Milestones({9: 8}))), config)
    assert roomy == dataclasses.replace(config, max_rank=8)
