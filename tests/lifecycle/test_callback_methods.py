"""What callbacks ask of one another, without knowing each other."""

from __future__ import annotations

import dataclasses

import pytest
from lightning.pytorch import Callback

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.callbacks import Milestones, RankScheduler
from asym_lightning.lifecycle.backbone import adapted_backbone
from tests.lifecycle.runs import Foreign, Own, data, start


class Stranger(Callback):
    """Has the methods, and inherits nothing of this package."""

    def __init__(self) -> None:
        self.changes: list[int] = []

    def adapter_config(self, config: AdapterConfig) -> AdapterConfig:
        return dataclasses.replace(config, max_rank=5)

    def on_rank_change(self, trainer, pl_module) -> None:
        self.changes.append(trainer.global_step)


@pytest.mark.parametrize("module", [Own, Foreign])
def test_any_callback_may_change_the_configuration_and_hears_of_changes_of_rank(module, tmp_path):
    stranger = Stranger()
    module, trainer, _ = start(tmp_path, module(), RankScheduler(Milestones({2: 3, 4: 1})), stranger, max_epochs=1)
    trainer.fit(module, data())
    assert {adapter.max_rank for adapter in adapters_by_name(module.backbone).values()} == {5}
    assert stranger.changes == [2, 4]


@pytest.mark.parametrize("module", [Own, Foreign])
def test_callbacks_find_the_adapted_backbone(module, tmp_path):
    module, trainer, _ = start(tmp_path, module(), max_epochs=1)
    trainer.fit(module, data())
    assert adapted_backbone(trainer, module) is module.backbone


def test_an_attribute_of_that_name_that_is_no_method_is_left_alone(tmp_path):
    stranger = Callback()
    stranger.adapter_config = {"rank": 3}
    module, trainer, _ = start(tmp_path, Own(), stranger, max_epochs=1)
    trainer.fit(module, data())
    assert {adapter.rank for adapter in adapters_by_name(module.backbone).values()} == {2}
