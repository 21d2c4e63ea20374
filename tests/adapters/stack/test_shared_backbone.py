import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters, trainable_parameters
from asym_lightning.adapters.stack.shared_backbone import Call, SharedBackbone
from tests.adapters.models import hf_inputs, hf_model, tiny_vit

LABELS = torch.tensor([1, 0, 2])


def images(seed):
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def adapted(make=tiny_vit, seeds=(0, 1, 2), **options):
    """Models over one backbone with different factors and heads, none of which is zero."""
    models = []
    for seed in seeds:
        model = make()
        inject_adapters(model, AdapterConfig(**{"rank": 2, "seed": seed, **options}))
        torch.manual_seed(seed)
        for _, parameter in trainable_parameters(model):
            nn.init.normal_(parameter, std=0.3)
        models.append(model)
    return models


def joined(models):
    shared = SharedBackbone()
    return shared, [shared.join(model) for model in models]


def gradients(model):
    return [parameter.grad.clone() for _, parameter in trainable_parameters(model)]


OPTIONS = [
    {"targets": ["q", "k", "v"]},
    {"targets": ["q", "k", "v"], "share_a": True},
    {"targets": "all-linear", "scheme": "hB_zero_hA_he"},
    {"scheme": "B_rand_hA_zero"},
    {"scheme": "hB_zero_A_coordinate", "path": "packed"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_pass_gives_each_model_its_outputs_and_gradients(options):
    # In float64: by the processor, rounding in float32 moves single numbers of gradients by up to a percent.
    models = [model.double() for model in adapted(**options)]
    alone = []
    for seed, model in enumerate(models):
        outputs = model(images(seed).double())
        F.cross_entropy(outputs, LABELS).backward()
        alone.append((outputs.detach(), gradients(model)))
        model.zero_grad()
    shared, members = joined(models)
    made = shared.call(members, [Call((images(seed).double(),), {}) for seed in range(3)])
    for outputs in made.outputs:
        F.cross_entropy(outputs, LABELS).backward()
    made.backward([2, 0])
    assert all(parameter.grad is None for _, parameter in trainable_parameters(models[1]))
    made.backward([1])
    for model, outputs, (expected, of_alone) in zip(models, made.outputs, alone, strict=True):
        torch.testing.assert_close(outputs.detach(), expected, rtol=1e-9, atol=1e-11)
        for found, expected_gradient in zip(gradients(model), of_alone, strict=True):
            torch.testing.assert_close(found, expected_gradient, rtol=1e-9, atol=1e-11)


def test_heads_of_different_tasks_give_each_model_its_own_number_of_outputs():
    models = adapted(targets=["q", "v"])
    alone = []
    for seed, (model, width) in enumerate(zip(models, (3, 1, 5), strict=True)):
        model.head = nn.Linear(model.head.in_features, width)
        outputs = model(images(seed))
        outputs.square().sum().backward()
        alone.append((outputs.detach(), gradients(model)))
        model.zero_grad()
    shared, members = joined(models)
    made = shared.call(members, [Call((images(seed),), {}) for seed in range(3)])
    for outputs in made.outputs:
        outputs.square().sum().backward()
    made.backward([1, 0])
    made.backward([2])
    for model, outputs, (expected, of_alone) in zip(models, made.outputs, alone, strict=True):
        assert outputs.shape == expected.shape
        torch.testing.assert_close(outputs.detach(), expected, rtol=1e-4, atol=1e-5)
        for found, expected_gradient in zip(gradients(model), of_alone, strict=True):
            torch.testing.assert_close(found, expected_gradient, rtol=1e-3, atol=1e-4)


def test_frozen_weights_are_held_once_and_layers_are_as_they_were():
    models = adapted()
    shared, members = joined(models)
    pointers = [{p.data_ptr() for p in model.parameters() if not p.requires_grad} for model in models]
    factors = {layer.adapters[key].factor_A.data_ptr() for m in models for layer in adapter_layers(m).values()
               for key in layer.adapters}  # fmt: skip
    assert pointers[0] - factors == pointers[1] - factors == pointers[2] - factors
    with torch.no_grad():
        shared.call(members, [Call((images(0),), {})] * 3)
    assert all(layer.adapters.by_row is None for model in models for layer in adapter_layers(model).values())


def test_outputs_of_transformers_keep_their_class():
    models = adapted(lambda: hf_model("bert"), heads=["classifier"])
    shared, members = joined(models[:2])
    with torch.no_grad():
        made = shared.call(members, [Call((), dict(hf_inputs("bert")))] * 2)
        for outputs, model in zip(made.outputs, models, strict=False):
            expected = model(**hf_inputs("bert"))
            assert type(outputs) is type(expected)
            torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_a_single_model_computes_as_it_does():
    (model,) = adapted(seeds=[0])
    shared, members = joined([model])
    made = shared.call(members, [Call((images(0),), {})])
    assert torch.equal(made.outputs[0].detach(), model(images(0)))
    made.outputs[0].sum().backward()
    made.backward([0])
    assert all(gradient.abs().sum() > 0 for gradient in gradients(model))


def changed(model):
    model = copy.deepcopy(model)
    model.blocks[0].mlp.fc1.bias.data[0] += 1
    return model


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (lambda: [tiny_vit(), adapted()[0]], "adapted alike but for the seed"),
        (lambda: [adapted()[0], adapted(rank=3)[0]], "adapted alike but for the seed"),
        (lambda: [adapted()[0], changed(adapted()[0])], r"`blocks.0.mlp.fc1.bias`, which is frozen, is not the same"),
        (lambda: [nn.Sequential(nn.Linear(2, 2))], r"trains beside adapters and heads .*: `0.weight`, `0.bias`"),
        (
            lambda: adapted(lambda: nn.Sequential(nn.Conv1d(4, 4, 1)), targets=["0"]),
            r"can't share a pass through `0` \(AdaptedConv1d\)",
        ),
    ],
    ids=["no adapter", "rank", "weight", "all trains", "convolution"],
)
def test_models_that_can_not_share_a_backbone_are_refused(models, message):
    models = [model.requires_grad_(False) if not adapter_layers(model) and len(list(model.modules())) > 2 else model
              for model in models()]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        joined(models)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.BatchNorm1d(4), nn.Linear(4, 4)], "other outputs beside others' rows than by themselves"),
        ([nn.Dropout(0.1), nn.Linear(4, 4)], "draws random numbers in `0`"),
        ([Mean(), nn.Linear(4, 4)], "`1` was called with 1 rows, which 2 models can't share"),
        ([nn.Identity(), nn.Linear(4, 4), Mean()], r"returns a tensor of shape \(1, 4\) for 8 rows"),
    ],
    ids=["batch norm", "dropout", "no rows inside", "no rows returned"],
)
def test_passes_in_which_rows_are_not_apart_are_refused(layers, message):
    models = adapted(lambda: copy.deepcopy(nn.Sequential(*layers)), targets=["1"], seeds=[0, 1])
    shared, members = joined(models)
    with pytest.raises(ValueError, match=message):
        shared.call(members, [Call((torch.randn(4, 4) * k,), {}) for k in (1, 9)])


def test_calls_are_alike_by_shapes_and_by_all_else_that_they_have():
    first = Call((torch.zeros(2, 3),), {"mask": None, "length": 1})
    assert first.form == Call((torch.ones(2, 3),), {"mask": None, "length": 1}).form
    for other in (
        Call((torch.zeros(2, 4),), {"mask": None, "length": 1}),
        Call((torch.zeros(2, 3),), {"mask": None, "length": True}),
        Call((torch.zeros(2, 3),), {"length": 1}),
        Call((torch.zeros(2, 3, dtype=torch.int64),), {"mask": None, "length": 1}),
    ):
        assert other.form not in (None, first.form)
    for alone in (
        Call((torch.zeros(2, 3), torch.zeros(3)), {}),
        Call((torch.zeros(2, 3), torch.tensor(1)), {}),
        Call((torch.zeros(2, 3, requires_grad=True),), {}),
        Call((torch.zeros(2, 3), object()), {}),
        Call((), {}),
    ):
        assert alone.form is None
