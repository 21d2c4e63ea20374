import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.analysis import calibration
from asym_lightning.analysis.calibration import adapter_sites, calibration_statistics
from tests.two_processes import in_two_processes


class FusedModel(nn.Module):
    """A fused layer, a plain one and a head; `mask` leaves tokens out of the loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.fc, self.head = nn.Linear(6, 9), nn.Linear(9, 5), nn.Linear(5, 3)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x, mask=None):
        hidden = self.dropout(self.qkv(x).tanh())
        hidden = self.fc(hidden).tanh()
        weights = hidden.new_ones(x.shape[:2]) if mask is None else mask
        return self.head((hidden * weights[..., None]).sum(1))


def adapted(**options):
    model = FusedModel()
    inject_adapters(model, AdapterConfig(rank=2, targets=["qkv", "fc"], heads=["head"], **options))
    return model


def draw_batches(count=3, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 4, 6, generator=generator).to(dtype), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def cross_entropy(model):
    return lambda batch: F.cross_entropy(model(batch[0]).float(), batch[1])


def weight_gradients(batches):
    """The gradients by the full weights, batch by batch, by autograd."""
    model = FusedModel().eval()
    found = {"qkv": [], "fc": []}
    for batch in batches:
        model.zero_grad()
        cross_entropy(model)(batch).backward()
        for name, gradients in found.items():
            gradients.append(model.get_submodule(name).weight.grad.clone())
    return {name: torch.cat(gradients) for name, gradients in found.items()}


def test_statistics_are_those_of_autograd():
    model, batches = adapted().eval(), draw_batches()
    found = dict(calibration_statistics(model, adapter_sites(model), batches, cross_entropy(model)))
    expected = weight_gradients(batches)
    x = torch.cat([images for images, _ in batches]).flatten(0, 1)
    torch.testing.assert_close(found["qkv.all"].inputs, x.T @ x / len(x))
    for name, gradients in expected.items():
        torch.testing.assert_close(found[f"{name}.all"].gradients, gradients)


@pytest.mark.parametrize("share_a", [False, True])
def test_each_slice_of_a_fused_layer_has_its_own_gradients_and_a_shared_A_all_of_them(share_a):
    from timm import create_model

    model = create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=3)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"], share_a=share_a))
    batch = (torch.randn(4, 3, 32, 32), torch.randint(3, (4,)))
    found = dict(calibration_statistics(model.eval(), adapter_sites(model), [batch], cross_entropy(model)))
    for p in model.parameters():
        p.requires_grad_(True)
    cross_entropy(model)(batch).backward()
    q, _, v = model.blocks[0].attn.qkv.weight.grad.split(192)
    name = "blocks.0.attn.qkv"
    wanted = {f"{name}.shared": torch.cat([q, v])} if share_a else {f"{name}.q": q, f"{name}.v": v}
    assert set(found) == set(wanted)
    for key, gradients in wanted.items():
        torch.testing.assert_close(found[key].gradients, gradients, rtol=1e-4, atol=1e-6)


def test_statistics_are_the_same_whatever_the_number_of_layers_at_a_time():
    model, batches = adapted(), draw_batches()  # in training mode, hence with dropout
    together = dict(calibration_statistics(model, adapter_sites(model), batches, cross_entropy(model)))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = dict(calibration_statistics(model, adapter_sites(model), batches, cross_entropy(model)))
    torch.set_rng_state(state)
    apart = dict(calibration_statistics(model, adapter_sites(model), batches, cross_entropy(model), layers_at_a_time=1))
    for key, statistics in apart.items():
        assert torch.equal(statistics.inputs, first[key].inputs)
        assert torch.equal(statistics.gradients, first[key].gradients)
    assert not torch.equal(together["fc.all"].inputs, first["fc.all"].inputs)  # the dropout was another one


def test_tokens_that_the_loss_does_not_depend_on_do_not_count():
    model = adapted().eval()
    x, mask = torch.randn(8, 4, 6), torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(8, 4)
    found = dict(calibration_statistics(model, adapter_sites(model), [x], lambda x: model(x, mask).square().mean()))
    seen = x[:, :3].flatten(0, 1)
    torch.testing.assert_close(found["qkv.all"].inputs, seen.T @ seen / len(seen))


def test_no_parameter_and_no_gradient_is_changed():
    model = adapted()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    dict(calibration_statistics(model, adapter_sites(model), draw_batches(), cross_entropy(model)))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_gradients_with_many_rows_are_projected_and_keep_their_gram_matrix_in_the_mean(monkeypatch):
    model, batches = adapted().eval(), draw_batches()
    sites, loss = adapter_sites(model), cross_entropy(model)
    exact = dict(calibration_statistics(model, sites, batches, loss))["qkv.all"].gradients
    monkeypatch.setattr(calibration, "NUM_ROWS", 12)
    grams = []
    for seed in range(300):
        rows = dict(calibration_statistics(model, sites, batches, loss, seed=seed))["qkv.all"].gradients
        assert rows.shape == (12, 6)
        grams.append(rows.T @ rows)
    expected = exact.T @ exact
    assert (torch.stack(grams).mean(0) - expected).norm() < 0.1 * expected.norm()


def test_moment_of_many_inputs_is_put_together_of_blocks(monkeypatch):
    x = torch.randn(40, 23, dtype=torch.float64)
    monkeypatch.setattr(calibration, "_BLOCK", 5)
    torch.testing.assert_close(calibration._gram(x), x.T @ x)


def test_bfloat16_is_summed_in_float32():
    model = adapted().eval().bfloat16()
    batches = draw_batches(count=1, size=500, dtype=torch.bfloat16)
    found = dict(calibration_statistics(model, adapter_sites(model), batches, cross_entropy(model)))["qkv.all"]
    x = batches[0][0].flatten(0, 1).double()
    assert found.inputs.dtype == torch.float32
    torch.testing.assert_close(found.inputs.double(), x.T @ x / len(x), rtol=1e-5, atol=1e-6)


def statistics_of_share(size):
    model = adapted().eval()
    if not dist.is_initialized() and size < 8:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if size < 8 else 0
    batches = [(x[rank::2], y[rank::2]) if size < 8 else (x, y) for x, y in draw_batches()]
    found = dict(calibration_statistics(model, adapter_sites(model), batches, cross_entropy(model)))
    return {key: (s.inputs.tolist(), s.gradients.tolist()) for key, s in found.items()}


def test_two_processes_find_what_one_finds():
    alone = statistics_of_share(8)
    first, second = (outcome.value for outcome in in_two_processes(statistics_of_share, 4))
    assert first == second
    for key, both in alone.items():
        for one, two in zip(both, first[key], strict=True):
            torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=1e-5, atol=1e-6)


def test_refuses_what_gives_no_statistics():
    model, batches = adapted().eval(), draw_batches(count=1)
    sites = adapter_sites(model)

    def run(batches, loss):
        return dict(calibration_statistics(model, sites, batches, loss))

    with pytest.raises(ValueError, match="no batches"):
        run([], cross_entropy(model))
    with pytest.raises(ValueError, match=r"loss of calibration batch 0 .* no gradient"):
        run(batches, lambda batch: batch[0].sum())
    with pytest.raises(ValueError, match="`fc` was never called"):
        run(batches, lambda batch: model.qkv(batch[0]).sum())
    with pytest.raises(ValueError, match="the inputs of `qkv` are not all finite"):
        run([(torch.full((8, 4, 6), torch.nan), batches[0][1])], cross_entropy(model))
    with pytest.raises(ValueError, match="the gradients by the weight of `qkv` are not all finite"):
        run(batches, lambda batch: cross_entropy(model)(batch) * torch.inf)


@pytest.mark.parametrize(
    ("layer", "host", "x"),
    [
        (nn.MultiheadAttention(8, 2), "MultiheadAttention", torch.randn(3, 2, 8)),
        (nn.Conv2d(8, 8, 3, groups=4), "Conv2d", torch.randn(2, 8, 5, 5)),
    ],
    ids=["attention", "grouped convolution"],
)
def test_layers_whose_calls_do_not_show_what_they_multiply_are_refused_by_name(layer, host, x):
    model = nn.ModuleDict({"mix": layer})
    inject_adapters(model, AdapterConfig("hB_zero_A_gradient", rank=2, targets=["mix"], heads=[]), draw=False)
    with pytest.raises(ValueError, match=rf"no A can be chosen from data for `mix`, since no call of {host} shows"):
        dict(calibration_statistics(model, adapter_sites(model), [x], lambda x: x.sum()))
