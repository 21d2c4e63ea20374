"""Every rule keeps what it says of itself; rules of a user's own are as good as those that are here."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    CalibrationStatistics,
    Draw,
    InitRule,
    LowRankAdapter,
    Scheme,
    adapter_layers,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    register_init,
    reset_adapters,
    save_adapters,
)
from asym_lightning.adapters.init import rule as registry
from asym_lightning.adapters.init.rule import init_names, init_rule
from asym_lightning.adapters.rank.change import grow_rank
from asym_lightning.adapters.rank.groups import rank_groups
from tests.adapters.models import perturb, tiny_vit

RULES = [(letter, name) for letter in ("A", "B") for name in init_names(letter)]
FROM_DATA = [name for name in init_names("A") if init_rule(name).needs_data]
FROZEN_A = [name for name in init_names("A") if not init_rule(name).is_zero and name not in FROM_DATA]


def adapter(letter: str, name: str, rank: int = 4, seed: int = 0) -> LowRankAdapter:
    """One whose factor starts by the rule, the other one being trained."""
    scheme = Scheme.parse(f"h{letter}_{name}_h{'AB'.replace(letter, '')}_rand")
    return LowRankAdapter(18, 14, rank=rank, max_rank=rank, scaling=1.0, scheme=scheme, key="a", seed=seed)


def rows(
    letter: str, name: str, rank: int = 4, weight: torch.Tensor | None = None, seed: int = 0, data: bool = True
) -> torch.Tensor:
    drawn, found = adapter(letter, name, rank, seed), {"a": statistics(14)} if data else {}
    return drawn.draw_A(weight, found) if letter == "A" else drawn.draw_B(weight, found).T


def statistics(d_in: int, seed: int = 0) -> CalibrationStatistics:
    generator = torch.Generator().manual_seed(seed)
    x, G = torch.randn(50, d_in, generator=generator), torch.randn(7, d_in, generator=generator)
    return CalibrationStatistics(x.T @ x / 50, gradients=G)


def pretrained() -> torch.Tensor:
    return torch.randn(18, 14, generator=torch.Generator().manual_seed(0))


def test_all_rules_are_found():
    # By what was there when tests were collected: others that run here may register rules of their own.
    assert {name for letter, name in RULES if letter == "A"} == {
        *("rand", "V", "V_last", "he", "zero", "coordinate", "block"),
        *("inputs", "gradient", "whitened_gradient"),
    }
    assert {name for letter, name in RULES if letter == "B"} == {"rand", "U", "U_last", "he", "zero"}


@pytest.mark.parametrize(("letter", "name"), RULES)
def test_a_rule_gives_what_it_says(letter, name):
    rule, weight = init_rule(name), pretrained()
    drawn = rows(letter, name, 4, weight)
    gram = drawn @ drawn.T
    is_orthonormal = torch.allclose(gram, torch.eye(4, dtype=gram.dtype), atol=1e-8)
    assert is_orthonormal == rule.is_orthonormal
    assert (not drawn.any()) == rule.is_zero
    assert torch.equal(rows(letter, name, 4, weight), drawn)
    assert rule.is_redrawn == (not rule.needs_data)
    if rule.nests:
        torch.testing.assert_close(rows(letter, name, 7, weight)[:4], drawn, atol=1e-8, rtol=0)
    if rule.needs_weight:
        with pytest.raises(RuntimeError, match=rf"Init '{name}' of a needs the pretrained weight, which is not loaded"):
            rows(letter, name)
    else:
        assert torch.equal(rows(letter, name), drawn)
    if rule.needs_data:
        with pytest.raises(ValueError, match=rf"Init '{name}' of `a` is drawn from data, and there are no statistics"):
            rows(letter, name, data=False)
    else:
        assert torch.equal(rows(letter, name, 4, weight, data=False), drawn)


@pytest.mark.parametrize("A_init", init_names("A"))
@pytest.mark.parametrize("B_init", init_names("B"))
def test_norms_of_every_init(A_init, B_init):
    scheme = Scheme.parse(f"hB_{B_init}_hA_{A_init}") if "zero" not in (A_init, B_init) or A_init != B_init else None
    if scheme is None:
        return
    d_out, d_in, r = 300, 200, 8
    adapter = LowRankAdapter(d_out, d_in, rank=r, max_rank=r, scaling=1.0, scheme=scheme, key="a")
    adapter.reset_parameters(torch.randn(d_out, d_in), statistics={"a": statistics(d_in)})
    row_norm = {"zero": 0, "he": 3**-0.5}.get(A_init, 1)
    column_norm = {"zero": 0, "he": (d_out / (3 * r)) ** 0.5}.get(B_init, 1)
    assert adapter.A.norm(dim=1).mean().item() == pytest.approx(row_norm, rel=0.05)
    assert adapter.B.norm(dim=0).mean().item() == pytest.approx(column_norm, rel=0.05)


@pytest.mark.parametrize("share_a", [False, True])
@pytest.mark.parametrize("name", FROZEN_A)
def test_a_compact_file_leaves_a_frozen_A_out_and_gives_it_back_to_the_bit(name, share_a, tmp_path):
    model = tiny_vit()
    config = AdapterConfig(f"hB_zero_A_{name}", rank=3, targets=["q", "v", "mlp"], share_a=share_a)
    inject_adapters(model, config)
    perturb(model)
    save_adapters(model, tmp_path, include_frozen=False)
    assert not any("lora_A" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    other = tiny_vit()
    load_adapters(other, tmp_path)
    for key, mine in adapters_by_name(model).items():
        assert torch.equal(mine.A, adapters_by_name(other)[key].A)
        assert torch.equal(mine.B, adapters_by_name(other)[key].B)


@pytest.mark.parametrize("name", FROZEN_A)
def test_an_untouched_A_grows_into_that_of_the_larger_rank_where_its_rule_says_so(name):
    def adapted(rank):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 12))
        inject_adapters(model, AdapterConfig(f"hB_zero_A_{name}", rank=rank, max_rank=7, targets=["0"]))
        return model

    grown, large = adapted(3), adapted(7)
    (group,) = rank_groups(grown).values()
    before = group.A
    grow_rank(group, 7)
    assert torch.equal(group.A[:3], before)
    is_equal = torch.allclose(group.A.float(), large[0].adapters["all"].A, atol=1e-6)
    assert is_equal == init_rule(name).grows_from_seed
    if init_rule(name).is_orthonormal:
        torch.testing.assert_close(group.A @ group.A.T, torch.eye(7, dtype=torch.float64), atol=1e-6, rtol=0)


# Rules of a user's own


@pytest.fixture
def own_rules(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


class Ones(InitRule):
    name = "ones"
    factors = "AB"
    nests = True

    def rows(self, draw: Draw) -> torch.Tensor:
        return torch.ones(draw.rank, draw.dim)


def test_a_rule_of_a_users_own_is_read_drawn_left_out_of_files_and_grown(own_rules, tmp_path):
    register_init(Ones)
    model, other = nn.Sequential(nn.Linear(6, 5)), nn.Sequential(nn.Linear(6, 5))
    inject_adapters(model, AdapterConfig("hB_ones_A_ones", rank=2, max_rank=3, targets=["0"]))
    assert torch.equal(model[0].adapters["all"].A, torch.ones(2, 6))
    assert torch.equal(model[0].adapters["all"].B, torch.ones(5, 2))
    (group,) = rank_groups(model).values()
    grow_rank(group, 3)
    assert torch.equal(model[0].adapters["all"].A, torch.ones(3, 6))
    save_adapters(model, tmp_path, include_frozen=False)
    assert not any("lora_A" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    load_adapters(other, tmp_path)
    assert torch.equal(other[0].delta_weight(), model[0].delta_weight())


def test_a_file_that_names_an_unknown_rule_is_refused_by_name(own_rules, tmp_path, monkeypatch):
    register_init(Ones)
    model = nn.Sequential(nn.Linear(6, 5))
    inject_adapters(model, AdapterConfig("hB_zero_A_ones", rank=2, targets=["0"]))
    save_adapters(model, tmp_path)
    monkeypatch.delitem(registry._RULES, "ones")
    other = nn.Sequential(nn.Linear(6, 5))
    with pytest.raises(ValueError, match=r"not known here: `scheme` 'hB_zero_A_ones'.*not 'ones'. `register_init`"):
        load_adapters(other, tmp_path)
    assert adapter_layers(other) == {}


def test_names_that_are_taken_or_can_not_be_read_are_refused(own_rules):
    register_init(Ones)
    register_init(Ones)  # again, as a notebook does
    with pytest.raises(ValueError, match=r"There is an init rule 'rand' already, asym_lightning.*RandomOrthonormal"):
        register_init(type("Mine", (Ones,), {"name": "rand"}))
    for name in ("", "my_A", "hB", "two__bars"):
        with pytest.raises(ValueError, match=rf"can't be called '{name}'"):
            register_init(type("Mine", (Ones,), {"name": name}))


def test_rows_of_another_shape_are_refused(own_rules):
    register_init(type("Row", (Ones,), {"name": "row", "rows": lambda self, draw: torch.ones(draw.dim)}))
    with pytest.raises(ValueError, match=r"Init 'row' gave \(6,\) for `0.all`, which needs \(2, 6\)"):
        inject_adapters(nn.Sequential(nn.Linear(6, 5)), AdapterConfig("hB_zero_A_row", rank=2, targets=["0"]))


# Rules that draw from data


def data_driven(**options) -> AdapterConfig:
    return AdapterConfig("hB_zero_A_inputs", rank=3, **{"targets": ["q", "v"], **options})


def test_a_rule_that_draws_from_data_gets_the_statistics_of_its_own_A():
    for share_a, names in ((False, ("q", "v")), (True, ("shared",))):
        model = tiny_vit(depth=1)
        found = {f"blocks.0.attn.qkv.{name}": statistics(24, seed) for seed, name in enumerate(names)}
        inject_adapters(model, data_driven(share_a=share_a), statistics=found)
        adapters = model.blocks[0].attn.qkv.adapters
        for name, adapter in zip(names, list(adapters.values())[: len(names)], strict=True):
            top = torch.linalg.eigh(found[f"blocks.0.attn.qkv.{name}"].inputs.double()).eigenvectors[:, -3:]
            assert (adapter.A.double() @ top).square().sum() == pytest.approx(3)


def test_without_statistics_it_is_refused_by_name_and_the_model_left_alone():
    model = tiny_vit(depth=1)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"Init 'inputs' of `blocks.0.attn.qkv.q` is drawn from data, and there are"):
        inject_adapters(model, data_driven())
    with pytest.raises(ValueError, match=r"Init 'inputs' of `blocks.0.attn.qkv.v` is drawn from data"):
        inject_adapters(model, data_driven(), statistics={"blocks.0.attn.qkv.q": statistics(24)})
    with pytest.raises(ValueError, match=r"statistics of `blocks.0.attn.qkv.q` are of 23 inputs, but it has 24"):
        inject_adapters(model, data_driven(), statistics={"blocks.0.attn.qkv.q": statistics(23)})
    assert adapter_layers(model) == {}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


@pytest.mark.parametrize(
    ("inputs", "gradients", "message"),
    [
        (torch.zeros(3, 4), None, r"`inputs` must be 3 x 3, got \(3, 4\)"),
        (torch.zeros(3, 3), torch.zeros(4, 4), r"`gradients` must be k x 3, got \(4, 4\)"),
        (torch.full((3, 3), torch.nan), None, "`inputs` holds NaN or infinity"),
        (torch.zeros(3, 3), torch.full((3, 3), torch.inf), "`gradients` holds NaN or infinity"),
    ],
)
def test_statistics_that_are_none_are_refused(inputs, gradients, message):
    with pytest.raises(ValueError, match=message):
        CalibrationStatistics(inputs, gradients)


@pytest.mark.parametrize("name", FROM_DATA)
def test_statistics_of_low_rank_leave_room_for_random_rows_beside(name):
    x, combinations = torch.randn(2, 14, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    found = {"a": CalibrationStatistics(x.T @ x / 2, gradients=combinations @ x)}
    drawn = [adapter("A", name, seed=seed).draw_A(None, found) for seed in (0, 1)]
    span = torch.linalg.qr(drawn[0][:2].T).Q
    torch.testing.assert_close(drawn[0] @ drawn[0].T, torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)
    assert torch.equal(drawn[0][:2], drawn[1][:2]) and not torch.allclose(drawn[0][2:], drawn[1][2:])
    torch.testing.assert_close(span @ (span.T @ x.T), x.T, atol=1e-6, rtol=0)


def test_statistics_of_inputs_alone_do_not_do_for_gradients():
    found = {"a": CalibrationStatistics(torch.eye(14))}
    adapter("A", "inputs").draw_A(None, found)
    with pytest.raises(ValueError, match="of inputs alone, and the init rule draws from gradients too"):
        adapter("A", "gradient").draw_A(None, found)


@pytest.mark.parametrize("include_frozen", [True, False])
def test_what_was_drawn_from_data_is_stored_and_loads_without_the_data(include_frozen, tmp_path):
    model = tiny_vit(depth=1)
    found = {f"blocks.0.attn.qkv.{name}": statistics(24) for name in "qv"}
    inject_adapters(model, data_driven(), statistics=found)
    perturb(model)
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    assert sum("lora_A" in key for key in load_file(tmp_path / "adapter_model.safetensors")) == 2 - include_frozen
    other = tiny_vit(depth=1)
    load_adapters(other, tmp_path)
    for name, adapter in adapters_by_name(model).items():
        assert torch.equal(adapters_by_name(other)[name].A, adapter.A)
        assert torch.equal(adapters_by_name(other)[name].B, adapter.B)


def test_adapters_can_be_put_in_first_and_drawn_when_the_data_are_there():
    model, whole = tiny_vit(depth=1), tiny_vit(depth=1)
    found = {f"blocks.0.attn.qkv.{name}": statistics(24) for name in "qv"}
    inject_adapters(model, data_driven(), draw=False)
    assert not any(adapter.factor_A.any() for adapter in adapters_by_name(model).values())
    parameters = copy.copy(dict(model.named_parameters()))
    with pytest.raises(ValueError, match="is drawn from data"):
        reset_adapters(model)
    reset_adapters(model, statistics=found)
    inject_adapters(whole, data_driven(), statistics=found)
    assert all(parameters[name] is p for name, p in model.named_parameters())
    for name, adapter in adapters_by_name(model).items():
        assert torch.equal(adapter.A, adapters_by_name(whole)[name].A)
