"""Adapter directories of modules with heads outside the adapted backbone."""

from __future__ import annotations

import pytest
import torch

from asym_lightning.adapters import load_adapters
from asym_lightning.callbacks import AdapterCheckpoint
from asym_lightning.lifecycle.adapter_directory import OUTSIDE_FILE
from tests.callbacks.foreign import Foreign, build_net, injection, loader, trainer


@pytest.fixture
def run(tmp_path):
    module = Foreign()
    trainer(tmp_path, injection(), AdapterCheckpoint(tmp_path, "x"), enable_checkpointing=True).fit(module, loader())
    return module.eval(), tmp_path / "x.adapter"


def test_a_directory_gives_back_the_whole_module(run):
    module, directory = run
    fresh = Foreign()
    injection().load(fresh, directory)
    x = torch.ones(2, 12)
    assert torch.equal(fresh.eval()(x), module(x))
    assert not torch.equal(Foreign().eval()(x), module(x))


def test_the_backbone_alone_reads_what_is_its_own(run):
    module, directory = run
    net = build_net()
    load_adapters(net, directory)
    x = torch.ones(2, 12)
    assert torch.equal(net.eval()(x), module.net(x))


def test_a_directory_that_lacks_a_head_says_so_and_loads_nothing(run):
    _, directory = run
    (directory / OUTSIDE_FILE).unlink()
    fresh = Foreign()
    with pytest.raises(ValueError, match=r"lacks `head\.weight`, `head\.bias`, which the module trains outside"):
        injection().load(fresh, directory)
    assert not fresh.net.first.adapters["all"].B.any()
