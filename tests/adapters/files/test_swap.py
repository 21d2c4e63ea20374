"""B's are exchanged where A's are shared."""

import pytest
import torch

from asym_lightning.adapters import (
    AdapterConfig,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    merge_adapters,
    save_adapters,
    swap_adapters,
)
from tests.adapters.models import perturb, tiny_vit

X = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


def adapted(seed: int = 0, scale: float = 0.3, **options):
    model = tiny_vit()
    inject_adapters(model, AdapterConfig(**{"rank": 3, "targets": ["q", "v", "mlp"], "seed": seed, **options}))
    perturb(model, scale)
    return model


@pytest.mark.parametrize("include_frozen", [True, False])
def test_an_adapter_over_the_same_A_is_swapped_in_and_out_exactly(include_frozen, tmp_path):
    first, second = adapted(), adapted(scale=0.1)
    for name, model in (("first", first), ("second", second)):
        save_adapters(model, tmp_path / name, include_frozen=include_frozen)
    model = tiny_vit()
    load_adapters(model, tmp_path / "first")
    held = {name: adapter.factor_B for name, adapter in adapters_by_name(model).items()}
    swap_adapters(model, tmp_path / "second")
    assert torch.equal(model(X), second(X))
    swap_adapters(model, tmp_path / "first")
    assert torch.equal(model(X), first(X))
    assert all(adapter.factor_B is held[name] for name, adapter in adapters_by_name(model).items())


@pytest.mark.parametrize("options", [{"seed": 1}, {"rank": 2}])
def test_another_A_is_refused_and_nothing_changes(options, tmp_path):
    save_adapters(adapted(**options), tmp_path)
    model = adapted()
    before = model(X)
    with pytest.raises(ValueError, match=r"another A of `blocks\.0\.attn\.qkv` \(q\).*use `load_adapters`"):
        swap_adapters(model, tmp_path)
    assert torch.equal(model(X), before)


def test_a_model_without_adapters_is_refused(tmp_path):
    model = adapted()
    save_adapters(model, tmp_path)
    merge_adapters(model)
    for other in (tiny_vit(), model):
        with pytest.raises(RuntimeError, match="no adapters to swap"):
            swap_adapters(other, tmp_path)
