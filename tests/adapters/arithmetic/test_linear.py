import peft
import pytest
import torch
from torch import nn

from asym_lightning.adapters import read_adapter, save_adapters
from asym_lightning.adapters.arithmetic import difference, interpolation, mean, negation, weighted_sum
from tests.adapters.arithmetic.adapters import assert_same, combination, plain, update, written


@pytest.fixture(params=[False, True], ids=["full", "compact"])
def three(request, tmp_path):
    adapters = [written(tmp_path, number, compact=request.param) for number in range(3)]
    return adapters, [update(adapter, tmp_path) for adapter in adapters]


def test_sums_and_means_are_those_of_the_dense_updates(three, tmp_path):
    adapters, updates = three
    weights = [0.7, -1.5, 2.0]
    assert_same(update(weighted_sum(adapters), tmp_path), combination(updates, [1, 1, 1]))
    assert_same(update(weighted_sum(adapters, weights), tmp_path), combination(updates, weights))
    assert_same(update(mean(adapters), tmp_path), combination(updates, [1 / 3] * 3))
    assert_same(update(mean(adapters, [1, 2, 1]), tmp_path), combination(updates, [0.25, 0.5, 0.25]))


def test_negation_difference_and_interpolation(three, tmp_path):
    adapters, updates = three
    negated = update(negation(adapters[0]), tmp_path)
    assert_same(negated, {**{name: -u for name, u in updates[0].items()}, "head": updates[0]["head"]})
    moved = update(difference(adapters[0], adapters[1]), tmp_path)
    assert_same(moved, {**{n: updates[0][n] - updates[1][n] for n in moved}, "head": updates[0]["head"]})
    between = update(interpolation(adapters[0], adapters[1], 0.3), tmp_path)
    assert_same(between, combination(updates[:2], [0.7, 0.3]))


def test_a_compact_sum_stays_compact(three):
    adapters, _ = three
    total = weighted_sum(adapters)
    assert total.is_compact == adapters[0].is_compact
    assert total.factors.keys() == adapters[0].factors.keys()


def test_no_input_changes(three):
    adapters, _ = three
    before = [{name: tensor.clone() for name, tensor in a.factors.items()} for a in adapters]
    weighted_sum(adapters, [2, 3, 4])
    assert all(torch.equal(a.factors[n], t) for a, b in zip(adapters, before, strict=True) for n, t in b.items())


@pytest.mark.parametrize("compact", [False, True])
def test_other_alphas_are_scaled_to_the_first(compact, tmp_path):
    adapters = [written(tmp_path, n, compact=compact, alpha=alpha) for n, alpha in ((0, 6), (1, 5), (2, 12))]
    updates = [update(adapter, tmp_path) for adapter in adapters]
    assert_same(update(weighted_sum(adapters), tmp_path), combination(updates, [1, 1, 1]))


def test_heads_of_one_adapter(three, tmp_path):
    adapters, updates = three
    found = update(weighted_sum(adapters, [1, 1, -2], heads_of=2), tmp_path)
    assert torch.equal(found["head"], updates[2]["head"])


def test_peft_makes_the_mean_of_three_that_share_A_three_times_too_large(tmp_path):
    """Its `linear` puts the root of each weight on both factors and adds each up; ours adds up one."""
    adapters = [written(tmp_path, n, model=plain(), targets=["0"], heads=[]) for n in range(3)]
    updates = [update(adapter, tmp_path, plain())["0"] for adapter in adapters]
    expected = sum(updates) / 3
    model = peft.PeftModel.from_pretrained(plain(), tmp_path / "0", adapter_name="0")
    for name in ("1", "2"):
        model.load_adapter(tmp_path / name, adapter_name=name)
    model.add_weighted_adapter(["0", "1", "2"], [1 / 3] * 3, "mean", combination_type="linear")
    of_peft = model.base_model.model[0].get_delta_weight("mean").double()
    torch.testing.assert_close(of_peft.float(), (3 * expected).float(), rtol=1e-4, atol=1e-5)
    assert_same({"0": update(mean(adapters), tmp_path, plain())["0"]}, {"0": expected})


def test_buffers_beside_the_factors_are_averaged_and_counts_are_the_first_adapters(tmp_path):
    def batch_norm_model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    adapters = []
    for number in range(2):
        model = batch_norm_model()
        written(tmp_path, number, model=model, targets=["0"], heads=["1", "2"])
        adapters.append(written_after_batches(tmp_path, number, model))
    name = "1.running_mean"
    found = mean(adapters)
    torch.testing.assert_close(found.others[name], (adapters[0].others[name] + adapters[1].others[name]) / 2)
    assert found.others["1.num_batches_tracked"] == adapters[0].others["1.num_batches_tracked"] == 1


def written_after_batches(folder, number, model):
    model.train()
    for _ in range(number + 1):
        model(torch.randn(5, 6))
    save_adapters(model, folder / str(number))
    return read_adapter(folder / str(number))


def test_heads_may_be_those_of_an_adapter_that_alone_has_some(tmp_path):
    adapters = [written(tmp_path, 0, heads=[]), written(tmp_path, 1)]
    for compact in (False, True):
        found = weighted_sum(
            [written(tmp_path, 0, heads=[], compact=compact), written(tmp_path, 1, compact=compact)], heads_of=1
        )
        assert torch.equal(update(found, tmp_path)["head"], adapters[1].others["head.weight"].double())


def test_adapters_of_peft_that_share_A_are_added_up(tmp_path):
    torch.manual_seed(0)
    model = peft.get_peft_model(plain(), peft.LoraConfig(r=2, target_modules=["0"]))
    layer, products = model.base_model.model[0], []
    for number in range(2):
        nn.init.normal_(layer.lora_B["default"].weight)
        products.append(layer.get_delta_weight("default").detach().double())
        model.save_pretrained(tmp_path / str(number))
    total = weighted_sum([read_adapter(tmp_path / str(number)) for number in range(2)], [1, -3])
    assert_same({"0": update(total, tmp_path, plain())["0"]}, {"0": products[0] - 3 * products[1]})
