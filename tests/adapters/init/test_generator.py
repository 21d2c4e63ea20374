"""Draws that depend on seed and name alone."""

import subprocess
import sys

import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters


def test_equal_seeds_give_equal_A_in_another_module_order_and_another_process():
    def build(order):
        model = nn.ModuleDict({name: nn.Linear(12, 12) for name in order})
        inject_adapters(model, AdapterConfig(rank=3, targets=["a", "b"], seed=5, heads=[]))
        return adapters_by_name(model)

    one, other = build("ab"), build("ba")
    for name in one:
        assert torch.equal(one[name].A, other[name].A)
    assert not torch.equal(one["a.all"].A, one["b.all"].A)
    code = (
        "import torch; torch.manual_seed(99); from torch import nn\n"
        "from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters\n"
        "m = nn.ModuleDict({'b': nn.Linear(12, 12), 'a': nn.Linear(12, 12)})\n"
        "inject_adapters(m, AdapterConfig(rank=3, targets=['a', 'b'], seed=5, heads=[]))\n"
        "print(adapters_by_name(m)['a.all'].A.tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert eval(printed) == one["a.all"].A.tolist()


def test_another_seed_gives_another_A_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    models = [nn.Sequential() for _ in range(2)]
    torch.set_rng_state(before)
    first = torch.rand(1)
    torch.set_rng_state(before)
    for seed, model in enumerate(models):
        layer = torch.nn.utils.skip_init(nn.Linear, 9, 9)
        model.append(layer)
        inject_adapters(model, AdapterConfig(rank=2, targets=["0"], seed=seed))
    assert torch.equal(torch.rand(1), first)
    assert not torch.equal(models[0][0].adapters["all"].A, models[1][0].adapters["all"].A)
