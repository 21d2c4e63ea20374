import pytest
import torch
import torch.nn.functional as F
from torch import nn

from asym_lightning.analysis.layer_statistics import advise_layers, layer_statistics


def build(d_in=6, d_hidden=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d_in, d_hidden), nn.ReLU(), nn.Linear(d_hidden, 3))


def cross_entropy(model):
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def test_moments_equal_those_of_each_sample_by_hand():
    model = build()
    batches = [(torch.randn(7, 6), torch.randint(3, (7,))), (torch.randn(4, 6), torch.randint(3, (4,)))]
    found = layer_statistics(model, ["0", "2"], batches, cross_entropy(model))
    inputs, outer = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
    for images, labels in batches:
        for x, label in zip(images, labels, strict=True):
            inputs += torch.outer(x, x) / 11
            model.zero_grad()
            F.cross_entropy(model(x), label).backward()
            gradient = model[0].bias.grad.double()  # of one sample, the gradient at the output
            outer += torch.outer(gradient, gradient) / 11
    torch.testing.assert_close(found["0"].input_covariance, inputs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["0"].output_metric, outer, atol=1e-6, rtol=1e-5)
    assert found["2"].num_tokens == 11


def test_no_parameter_and_no_gradient_is_changed():
    model = build()
    before = [p.clone() for p in model.parameters()]
    layer_statistics(model, ["0"], [(torch.randn(7, 6), torch.randint(3, (7,)))], cross_entropy(model))
    assert all(torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), before, strict=True))
    assert not model[0]._forward_hooks


def test_slices_have_the_rows_of_their_outputs():
    model = build()
    found = layer_statistics(model, ["0"], [(torch.randn(7, 6), torch.randint(3, (7,)))], cross_entropy(model))["0"]
    assert torch.equal(found.rows(1, 3).output_metric, found.output_metric[1:3, 1:3])


def test_advice_follows_where_the_information_is():
    model = build(32, 32)
    few = torch.randn(4, 32)
    few_inputs = (torch.randn(400, 4) @ few, torch.randint(3, (400,)))
    many_inputs = (torch.randn(400, 32), torch.randint(3, (400,)))
    update = {"0": torch.randn(32, 32)}
    for batch, factor in ((few_inputs, "B"), (many_inputs, "A")):  # three classes: few directions at the output
        statistics = layer_statistics(model, ["0"], [batch], cross_entropy(model))
        statistics["0"].output_metric += (factor == "B") * torch.eye(32)
        assert advise_layers(update, statistics, rank=4)["0"].factor == factor


def test_refuses_layers_without_statistics():
    model = build()
    with pytest.raises(ValueError, match="`1` is a ReLU"):
        layer_statistics(model, ["1"], [], cross_entropy(model))
    with pytest.raises(ValueError, match="`0` was never called"):
        layer_statistics(model, ["0"], [], cross_entropy(model))


@pytest.mark.parametrize(
    ("num_inputs", "num_outputs", "winner"),
    [(3, 32, "B"), (32, 2, "A")],
    ids=["few directions of inputs", "few directions of outputs"],
)
def test_training_shows_what_the_advice_says(num_inputs, num_outputs, winner):
    """A pretrained layer must become another one; both arms are trained to the end by Adam, each at its best rate."""
    torch.manual_seed(0)
    dim, rank = 32, 4
    inputs = torch.randn(500, num_inputs) @ torch.linalg.qr(torch.randn(dim, num_inputs)).Q.T
    head = nn.Linear(dim, num_outputs).requires_grad_(False)
    weight, update = torch.randn(dim, dim) / dim**0.5, torch.randn(dim, dim) / dim**0.5

    def loss_with(delta):
        hidden = inputs @ (weight + delta).T
        return F.mse_loss(head(hidden.tanh()), head((inputs @ (weight + update).T).tanh()))

    model = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.Tanh(), head)
    model[0].weight.data = weight
    targets = head((inputs @ (weight + update).T).tanh()).detach()
    statistics = layer_statistics(model, ["0"], [inputs], lambda x: (model(x) - targets).square().sum())
    assert advise_layers({"0": update}, statistics, rank)["0"].factor == winner

    A, B = torch.linalg.qr(torch.randn(dim, rank)).Q.T, torch.linalg.qr(torch.randn(dim, rank)).Q

    def trained(product, shape):
        losses = []
        for rate in (0.01, 0.03, 0.1):
            factor = torch.zeros(shape, requires_grad=True)
            optimizer = torch.optim.Adam([factor], lr=rate)
            for _ in range(300):
                optimizer.zero_grad()
                loss = loss_with(product(factor))
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
        return min(losses)

    loss_of = {"B": trained(lambda b: b @ A, (dim, rank)), "A": trained(lambda a: B @ a, (rank, dim))}
    loser = {"A": "B", "B": "A"}[winner]
    assert loss_of[winner] < 0.5 * loss_of[loser]
