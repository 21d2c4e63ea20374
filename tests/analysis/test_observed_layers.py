import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.analysis.observed_layers import observed_layers


def weight_gradients(model, names, run):
    """The gradients by the weights as observed: the sum of g^T x over all calls."""
    layers = {name: model.get_submodule(name) for name in names}
    found = {}

    def add(name, x, g):
        found[name] = found.get(name, 0) + g.T @ x

    with observed_layers(layers, add):
        run().backward()
    return found


def test_inputs_and_gradients_give_the_gradient_of_the_weight():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 5), layer)  # called twice
    found = weight_gradients(model, ["0"], lambda: model(torch.randn(2, 4, 5)).square().sum())
    torch.testing.assert_close(found["0"], layer.weight.grad)
    assert not layer._forward_hooks


@pytest.mark.parametrize("is_adapted", [False, True])
@pytest.mark.parametrize(
    ("kind", "window", "options"),
    [
        (nn.Conv1d, 3, {"stride": 2, "padding": 1}),
        (nn.Conv2d, (3, 2), {"stride": 2, "padding": (1, 2)}),
        (nn.Conv2d, (3, 2), {"padding": "same", "dilation": (1, 2)}),
        (nn.Conv2d, (3, 2), {"padding": "valid"}),
        (nn.Conv2d, (3, 2), {"padding": (1, 1), "padding_mode": "reflect"}),
        (nn.Conv3d, 2, {"dilation": (1, 2, 1)}),
    ],
)
def test_windows_of_a_convolution_give_the_gradient_of_its_kernel(kind, window, options, is_adapted):
    torch.manual_seed(0)
    conv = kind(2, 3, window, **options)
    model, x = nn.Sequential(conv), torch.randn(2, 2, *[7, 6, 5][: conv.weight.dim() - 2])
    if is_adapted:
        inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=[]))
        conv.weight.requires_grad_(True)
    found = weight_gradients(model, ["0"], lambda: conv(x).square().sum())
    torch.testing.assert_close(found["0"].view_as(conv.weight), conv.weight.grad)


def test_adapted_layers_are_observed_like_their_hosts():
    torch.manual_seed(0)
    x = torch.randn(7, 6)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    before = weight_gradients(model, ["0"], lambda: model(x).square().sum())
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=[]))
    after = weight_gradients(model, ["0"], lambda: model(x).square().sum())
    torch.testing.assert_close(after["0"], before["0"])


def test_checkpointed_activations_do_not_count_twice():
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 3), torch.randn(4, 3, requires_grad=True)
    for use_reentrant in (False, True):
        layer.weight.grad = None
        found = weight_gradients(
            nn.Sequential(layer), ["0"], lambda r=use_reentrant: checkpoint(layer, x, use_reentrant=r).square().sum()
        )
        torch.testing.assert_close(found["0"], layer.weight.grad)


def test_what_gets_no_gradient_is_not_observed():
    layer, seen = nn.Linear(3, 3), []
    with observed_layers({"0": layer}, lambda *args: seen.append(args)):
        layer(torch.ones(1, 3))
        with torch.no_grad():
            layer(torch.ones(1, 3))
    assert not seen
