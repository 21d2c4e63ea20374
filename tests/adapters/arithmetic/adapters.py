"""Adapters of one small model, on disk, and their updates by dense formulas in float64."""

import torch
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    load_adapters,
    read_adapter,
    save_adapters,
    write_adapter,
)
from tests.adapters.models import tiny_vit


def written(folder, number, *, compact=False, model=None, **options):
    """An adapter whose B's and head are drawn by its number, read from disk."""
    model = tiny_vit() if model is None else model
    inject_adapters(model, AdapterConfig(**{"rank": 3, "alpha": 6, "targets": ["q", "v", "mlp"], **options}))
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for _, p in sorted(model.named_parameters()):
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator))
    save_adapters(model, folder / str(number), include_frozen=not compact)
    return read_adapter(folder / str(number))


def update(adapter, folder, model=None):
    """s B A of every layer, (d_out, d_in) in float64, of what the model is that loads what is written."""
    write_adapter(adapter, folder / "written")
    model = tiny_vit() if model is None else model
    load_adapters(model, folder / "written")
    return {
        name: sum_of_slices(layer) for name, layer in adapter_layers(model).items()
    } | {"head": model.state_dict().get("head.weight", torch.zeros(1)).double()}  # fmt: skip


def sum_of_slices(layer):
    delta = torch.zeros(layer.shape_of(layer), dtype=torch.float64)
    for name, slice_adapter in layer.adapters.items():
        product = slice_adapter.scaling * slice_adapter.B.detach().double() @ slice_adapter.A.detach().double()
        layer.adapters.rows[name].view(delta, 0).copy_(layer.adapters.rows[name].split(product, 0))
    return delta


def assert_same(found, expected, rtol=1e-6):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name] - tensor).norm() / max(float(tensor.norm()), 1e-9)
        assert error < rtol, f"{name}: {error}"


def combination(updates, weights):
    """The weighted sum of updates, and of heads with weights that add up to one."""
    total = sum(weights)
    return {
        name: sum(w / (total if name == "head" else 1) * u[name] for w, u in zip(weights, updates, strict=True))
        for name in updates[0]
    }


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 7))
