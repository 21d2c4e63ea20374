"""Files of every released format are read, and mean what they meant: the same outputs, and training goes on alike."""

import json
from pathlib import Path

import pytest
import torch

from asym_lightning.adapters import AdapterConfig, inject_adapters, load_adapters
from asym_lightning.adapters.files.factors import read_factors
from tests.golden.model import CONFIG, Net, adapted, fit, inputs

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "outputs.json").is_file())


def expected(version, name):
    return torch.tensor(json.loads((version / "outputs.json").read_text())[name])


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def version(request):
    return request.param


def test_there_are_some():
    assert VERSIONS


@pytest.mark.parametrize("form", ["full", "compact"])
@pytest.mark.parametrize("is_adapted", [False, True])
def test_adapters_give_the_outputs_that_they_gave(form, is_adapted, version):
    model = Net()
    if is_adapted:
        inject_adapters(model, AdapterConfig(**CONFIG))
    load_adapters(model, version / form)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs()), expected(version, "adapter"), rtol=1e-5, atol=1e-6)


def test_adapters_hold_the_factors_that_they_held(version):
    model = adapted()
    factors = read_factors(version / "full")
    assert {name: (tuple(f.A.shape), tuple(f.B.shape)) for name, f in factors.items()} == {
        "one": ((2, 6), (4, 2)),
        "two": ((3, 4), (5, 3)),
    }
    torch.testing.assert_close(factors["one"].A, model.one.adapters["all"].A.detach(), rtol=1e-5, atol=1e-6)
    assert {name: f.A for name, f in read_factors(version / "compact").items()} == {"one": None, "two": None}


def test_training_goes_on_from_a_checkpoint_as_it_went_on(version, tmp_path):
    module, trainer = fit(tmp_path, 2, version / "after_one_epoch.ckpt")
    assert trainer.global_step == 4
    with torch.no_grad():
        torch.testing.assert_close(module.net(inputs()), expected(version, "after_two_epochs"), rtol=1e-4, atol=1e-5)
