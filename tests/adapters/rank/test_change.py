"""Changes of rank against dense formulas, and what the optimizer makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters, load_adapters, save_adapters
from asym_lightning.adapters.rank.change import grow_rank, orthonormalize, set_rank, shrink_rank
from asym_lightning.adapters.rank.groups import rank_groups

SCHEMES = ("hB_zero_A_rand", "hB_he_A_rand", "hB_he_hA_he", "hA_he_B_rand", "hB_he_A_V")


class Fused(nn.Module):
    """A fused q, k, v projection that goes by GPT-2's name."""

    config = SimpleNamespace(model_type="gpt2")

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.attn = nn.Module()
        self.attn.c_attn = nn.Linear(d_in, 3 * d_out)

    @property
    def qkv(self) -> nn.Linear:
        return self.attn.c_attn

    def forward(self, x: Tensor) -> Tensor:
        return self.qkv(x)


def adapted(d_in: int = 12, d_out: int = 10, *, share_a: bool = False, **options) -> Fused:
    torch.manual_seed(0)
    model = Fused(d_in, d_out)
    options = {"scheme": "hB_he_A_rand", "rank": 4, "targets": ["q", "v"], **options}
    inject_adapters(model, AdapterConfig(share_a=share_a, **options))
    return model


def delta(model: nn.Module) -> Tensor:
    return model.qkv.delta_weight().detach().double()


def blocks(model: nn.Module) -> list[Tensor]:
    """The dense update of each group: one a slice, or all slices at once where they share A."""
    parts = list(delta(model).chunk(3))
    q_and_v = [parts[0], parts[2]]
    return [torch.cat(q_and_v)] if model.qkv.adapters.shares_a else q_and_v


def best_approximation(matrix: Tensor, rank: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] @ torch.diag(S[:rank]) @ Vh[:rank]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        x = torch.randn(6, 12, dtype=model.qkv.weight.dtype)
        optimizer.zero_grad()
        (model(x).square().mean() + model(x).sin().mean()).backward()
        optimizer.step()


def trained(scheme: str, make: Callable = torch.optim.AdamW, **options) -> tuple[Fused, torch.optim.Optimizer]:
    model = adapted(scheme=scheme, **options).double()
    optimizer = make([p for p in model.parameters() if p.requires_grad], lr=0.05)
    train(model, optimizer)
    return model, optimizer


@settings(max_examples=40, deadline=None)
@example(scheme="hB_he_A_rand", sizes=(8, 14), ranks=[8, 3, 2], share_a=False, dtype=torch.float32)
@given(
    scheme=st.sampled_from(SCHEMES),
    sizes=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    ranks=st.lists(st.integers(1, 14), min_size=2, max_size=5),
    share_a=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_walk_of_ranks_gives_the_best_approximation_on_the_way_down_and_the_same_function_on_the_way_up(
    scheme, sizes, ranks, share_a, dtype
):
    largest = min(sizes)
    start, *path = [min(rank, largest) for rank in ranks]
    torch.manual_seed(0)
    model = Fused(*sizes).to(dtype)
    config = AdapterConfig(scheme=scheme, rank=start, max_rank=largest, targets=["q", "v"], share_a=share_a)
    inject_adapters(model, config)
    parameters = dict(model.named_parameters())
    for step, rank in enumerate(path):
        before = blocks(model)
        for group in rank_groups(model).values():
            set_rank(group, rank, step=step)
        for old, new in zip(before, blocks(model), strict=True):
            # Rounding of the factors moves entries in proportion to the update's norm, not to each entry.
            rounding = 1e-6 * max(1.0, torch.linalg.matrix_norm(old, 2).item())
            torch.testing.assert_close(new, best_approximation(old, rank), atol=rounding, rtol=1e-5)
        for adapter in model.qkv.adapters.values():
            assert adapter.rank == rank
            assert not adapter.factor_A[rank:].any() and not adapter.factor_B[:, rank:].any()
            if scheme.endswith(("A_rand", "A_V")):
                torch.testing.assert_close(adapter.A @ adapter.A.T, torch.eye(rank, dtype=dtype), atol=1e-5, rtol=0)
    assert all(parameters[name] is p for name, p in model.named_parameters())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_outputs_before_and_after_growing_are_equal(scheme):
    model = adapted(scheme=scheme, max_rank=8)
    x = torch.randn(5, 12)
    before = model(x)
    for group in rank_groups(model).values():
        grow_rank(group, 8)
    torch.testing.assert_close(model(x), before, atol=1e-6, rtol=0)


def test_singular_values_are_those_of_the_dense_update():
    for share_a in (False, True):
        model = adapted(share_a=share_a)
        for group, dense in zip(rank_groups(model).values(), blocks(model), strict=True):
            torch.testing.assert_close(
                group.singular_values, torch.linalg.svdvals(dense)[:4].double(), atol=1e-6, rtol=1e-5
            )


def test_slices_that_share_A_keep_sharing_it_and_shrink_together():
    model = adapted(share_a=True)
    (group,) = rank_groups(model).values()
    assert group.name == "attn.c_attn.shared"
    shrink_rank(group, 2)
    q, v = model.qkv.adapters.values()
    assert q.factor_A is v.factor_A and q.rank == v.rank == 2


def test_slices_with_different_alpha_shrink_by_what_they_add_to_the_function():
    model = adapted(share_a=True, alpha_pattern={"q": 1.0, "v": 50.0})
    before = blocks(model)[0]
    for group in rank_groups(model).values():
        shrink_rank(group, 2)
    torch.testing.assert_close(blocks(model)[0], best_approximation(before, 2), atol=1e-5, rtol=1e-5)


def test_a_grown_random_A_is_the_one_that_a_larger_rank_draws():
    grown, large = adapted(max_rank=8), adapted(rank=8)
    for group in rank_groups(grown).values():
        grow_rank(group, 8)
    for mine, theirs in zip(grown.qkv.adapters.values(), large.qkv.adapters.values(), strict=True):
        torch.testing.assert_close(mine.A, theirs.A, atol=1e-6, rtol=0)


def test_rows_grown_after_a_rotation_depend_on_seed_layer_and_step_alone():
    drawn = {}
    for step in (5, 5, 6):
        model = adapted(max_rank=8)
        for group in rank_groups(model).values():
            shrink_rank(group, 2)
            grow_rank(group, 3, step=step)
        drawn.setdefault(step, []).append(model.qkv.adapters["q"].A[2].clone())
        assert not torch.equal(drawn[step][-1], model.qkv.adapters["v"].A[2])
    assert torch.equal(*drawn[5])
    assert not torch.equal(drawn[5][0], drawn[6][0])


def test_grown_rows_of_a_trained_A_are_as_long_as_its_rows_are():
    model = adapted(scheme="hB_zero_hA_he", max_rank=6)
    for group in rank_groups(model).values():
        A = group.A
        grow_rank(group, 6)
        new = group.A[4:]
        torch.testing.assert_close(new.norm(dim=1), A.square().sum(1).mean().sqrt().expand(2), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(A @ new.T, torch.zeros(4, 2, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("share_a", [False, True])
def test_a_frozen_B_keeps_orthonormal_columns_through_shrinking_and_growing(share_a):
    model = adapted(scheme="hA_he_B_rand", share_a=share_a, max_rank=8)
    for group in rank_groups(model).values():
        shrink_rank(group, 3)
        torch.testing.assert_close(group.B.T @ group.B, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
        grow_rank(group, 6)
        assert not group.A[3:].any()
    assert all(adapter.B[:, 3:].norm() > 0 for adapter in model.qkv.adapters.values())


def test_a_packed_layer_stays_packed():
    model = adapted(path="packed", max_rank=6)
    x = torch.randn(2, 12)
    model(x)
    packed = model.qkv.adapters.packed_with(model.qkv.weight)
    for group in rank_groups(model).values():
        shrink_rank(group, 2)
        grow_rank(group, 5)
    expected = nn.functional.linear(x, model.qkv.weight + model.qkv.delta_weight(), model.qkv.bias)
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)
    assert model.qkv.adapters.packed_with(model.qkv.weight) is packed


def test_orthonormalizing_keeps_the_function():
    for factor, scheme in (("A", "hB_he_hA_he"), ("B", "hB_he_hA_he"), ("B", "hA_he_B_he")):
        model = adapted(scheme=scheme)
        before = delta(model)
        for group in rank_groups(model).values():
            orthonormalize(group, factor=factor)
            gram = group.A @ group.A.T if factor == "A" else group.B.T @ group.B
            torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), atol=1e-5, rtol=0)
        torch.testing.assert_close(delta(model), before, atol=1e-6, rtol=1e-5)


# Optimizer state


@pytest.mark.parametrize("scheme", ["hB_he_A_rand", "hB_he_hA_he", "hA_he_B_rand"])
@pytest.mark.parametrize("change", ["shrink", "A", "B"])
def test_momentum_after_a_change_is_what_it_would_be_had_training_run_in_the_new_coordinates(scheme, change):
    """First moments are linear in the gradients, so what they are in new coordinates is known exactly."""
    model, optimizer = trained(scheme)
    # With learning rate zero the same gradient comes each time: then exp_avg is a multiple of the gradient.
    model_new, optimizer_new = copy.deepcopy((model, optimizer))
    groups = rank_groups(model_new).values()
    for group in groups:
        if change == "shrink":
            shrink_rank(group, 4, [optimizer_new])
        else:
            orthonormalize(group, [optimizer_new], factor=change)
    for pair in (model, optimizer), (model_new, optimizer_new):
        for group in pair[1].param_groups:
            group.update(lr=0.0, weight_decay=0.0, betas=(0.0, 0.0))
    for m, o in (model, optimizer), (model_new, optimizer_new):
        if m is model:
            train(m, o, steps=1)
            for group in rank_groups(m).values():
                if change == "shrink":
                    shrink_rank(group, 4, [o])
                else:
                    orthonormalize(group, [o], factor=change)
        else:
            train(m, o, steps=1)
    for before, after in zip(optimizer.state.values(), optimizer_new.state.values(), strict=True):
        torch.testing.assert_close(before["exp_avg"], after["exp_avg"], atol=1e-10, rtol=1e-8)


def test_second_moments_of_a_rotation_keep_their_sum_and_the_inactive_part_is_zero():
    model, optimizer = trained("hB_he_A_rand")
    adapter = model.qkv.adapters["q"]
    before = optimizer.state[adapter.factor_B]["exp_avg_sq"].clone()
    (group, _) = rank_groups(model).values()
    shrink_rank(group, 4, [optimizer])
    after = optimizer.state[adapter.factor_B]["exp_avg_sq"]
    torch.testing.assert_close(after.sum(1), before.sum(1))
    shrink_rank(group, 2, [optimizer])
    for name in ("exp_avg", "exp_avg_sq"):
        assert not optimizer.state[adapter.factor_B][name][:, 2:].any()
        assert optimizer.state[adapter.factor_B][name][:, :2].any()


def test_new_columns_start_without_momentum_and_with_a_tenth_of_the_mean_second_moment():
    model, optimizer = trained("hB_he_A_rand", max_rank=6)
    adapter = model.qkv.adapters["q"]
    (group, _) = rank_groups(model).values()
    grow_rank(group, 6, [optimizer])
    state = optimizer.state[adapter.factor_B]
    assert not state["exp_avg"][:, 4:].any()
    tenth = 0.1 * state["exp_avg_sq"][:, :4].mean(1, keepdim=True)
    torch.testing.assert_close(state["exp_avg_sq"][:, 4:], tenth.expand(-1, 2))


def test_the_first_steps_after_growing_late_are_at_most_about_three_times_the_learning_rate():
    """With second moments of zero they would be up to six times as long as it."""
    model, optimizer = trained("hB_he_A_rand", lambda p, lr: torch.optim.Adam(p, lr=1e-3), max_rank=6)
    train(model, optimizer, steps=300)
    for group in rank_groups(model).values():
        grow_rank(group, 6, [optimizer])
    train(model, optimizer, steps=10)
    for adapter in model.qkv.adapters.values():
        assert adapter.B[:, 4:].any()
        assert adapter.B[:, 4:].abs().max() < 3.2 * 10 * 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
        lambda p, lr: torch.optim.AdamW(p, lr, amsgrad=True),
        lambda p, lr: torch.optim.RMSprop(p, lr, momentum=0.9, centered=True),
        lambda p, lr: torch.optim.Adagrad(p, lr),
        lambda p, lr: torch.optim.NAdam(p, lr),
    ],
)
def test_other_optimizers_follow_too(make):
    model, optimizer = trained("hB_he_A_rand", make, max_rank=6)
    for group in rank_groups(model).values():
        shrink_rank(group, 2, [optimizer])
        grow_rank(group, 6, [optimizer])
    train(model, optimizer)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_optimizer_whose_state_is_unknown_is_refused():
    model, optimizer = trained("hB_he_A_rand", lambda p, lr: torch.optim.Rprop(p, lr))
    (group, _) = rank_groups(model).values()
    with pytest.raises(RuntimeError, match=r"can't carry over `prev`.*Rprop"):
        shrink_rank(group, 2, [optimizer])


# Saving


def test_an_adapter_file_has_the_active_rank_only(tmp_path):
    model = adapted(max_rank=8)
    for group in rank_groups(model).values():
        set_rank(group, 2 if "q" in group.name else 6)
    for include_frozen in (True, False):
        save_adapters(model, tmp_path, include_frozen=include_frozen)
        fresh = adapted(max_rank=8)
        load_adapters(fresh, tmp_path)
        assert [a.rank for a in fresh.qkv.adapters.values()] == [2, 6]
        torch.testing.assert_close(delta(fresh), delta(model), atol=1e-6, rtol=1e-6)


def test_a_rank_that_has_no_room_is_refused():
    (group, _) = rank_groups(adapted(max_rank=6)).values()
    for rank in (0, 7):
        with pytest.raises(ValueError, match=rf"`attn\.c_attn\.q` can't have rank {rank}: there is room for 1 to 6"):
            set_rank(group, rank)


def test_the_rank_travels_with_the_state_dict():
    model, fresh = adapted(max_rank=8), adapted(max_rank=8)
    for group in rank_groups(model).values():
        set_rank(group, 3)
    fresh.load_state_dict(model.state_dict())
    assert [adapter.rank for layer in adapter_layers(fresh).values() for adapter in layer.adapters.values()] == [3, 3]
