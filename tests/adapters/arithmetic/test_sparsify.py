import pytest
import torch

from asym_lightning.adapters.arithmetic import combined, dropped, sign_election, trimmed
from tests.adapters.arithmetic.adapters import plain, written


@pytest.fixture
def three(tmp_path):
    return [written(tmp_path, n, model=plain(), targets=["0", "2"], heads=[]) for n in range(3)]


def entries(adapter):
    return torch.cat([B.flatten() for name, B in adapter.factors.items() if name.endswith("lora_B")])


def test_trimming_keeps_the_largest_entries_over_all_layers(three):
    before, after = entries(three[0]), entries(trimmed(three[0], 0.25))
    num_kept = round(0.25 * len(before))
    threshold = before.abs().sort(descending=True).values[num_kept - 1]
    assert torch.equal(after, before.where(before.abs() >= threshold, 0))


@pytest.mark.parametrize("compact", [False, True])
def test_blocks_of_a_fused_layer_count_as_their_entries(compact, tmp_path):
    adapter = written(tmp_path, 0, compact=compact)
    size = int(entries(adapter).count_nonzero())
    assert entries(trimmed(adapter, 0.5)).count_nonzero() == round(0.5 * size)
    assert size == 2 * (24 * 3 * 2 + (96 + 24) * 3)


def test_dropping_scales_up_what_stays_and_is_drawn_by_its_seed(three):
    before, after = entries(three[0]), entries(dropped(three[0], 0.5, seed=3))
    assert torch.equal(after, torch.where(after == 0, 0, before / 0.5))
    assert 0.3 < (after == 0).float().mean() < 0.7
    assert torch.equal(after, entries(dropped(three[0], 0.5, seed=3)))
    assert not torch.equal(after, entries(dropped(three[0], 0.5, seed=4)))


def test_election_is_the_mean_of_those_who_agree(three):
    stacked = torch.stack([entries(adapter).double() for adapter in three])
    for weights in ([1.0, 1.0, 1.0], [3.0, 1.0, 0.5]):
        share = torch.tensor(weights).double().unsqueeze(1)
        elected = torch.sign((stacked * share).sum(0))
        expected = [
            sum(w * float(x) for w, x in zip(weights, column, strict=True) if x.sign() == sign)
            / sum(w for w, x in zip(weights, column, strict=True) if x.sign() == sign)
            for column, sign in zip(stacked.T, elected, strict=True)
        ]
        found = entries(sign_election(three, weights)).double()
        torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-7)


def test_ties_trims_first(three):
    expected = sign_election([trimmed(adapter, 0.3) for adapter in three])
    assert torch.equal(entries(combined(three, "ties", keep=0.3)), entries(expected))


def test_agrees_with_peft_where_both_elect_untrimmed(three, tmp_path):
    import peft

    model = peft.PeftModel.from_pretrained(plain(), tmp_path / "0", adapter_name="0")
    for name in ("1", "2"):
        model.load_adapter(tmp_path / name, adapter_name=name)
    model.add_weighted_adapter(["0", "1", "2"], [1.0] * 3, "elected", combination_type="ties", density=1.0)
    scaling = three[0].peft_config["lora_alpha"] / three[0].peft_config["r"]
    layer = model.base_model.model[0]
    # `peft` puts the root of the scaling into each factor of a combination, whose own scaling is one.
    of_peft = layer.lora_B["elected"].weight * layer.scaling["elected"] / scaling**0.5
    torch.testing.assert_close(of_peft, sign_election(three).factors["0.lora_B"], rtol=1e-5, atol=1e-6)


def test_what_is_out_of_range_is_refused(three):
    for keep in (0, 1.5):
        with pytest.raises(ValueError, match=r"`keep` must be in \(0, 1\]"):
            trimmed(three[0], keep)
    with pytest.raises(ValueError, match=r"`drop` must be in \[0, 1\), not 1"):
        dropped(three[0], 1)
    with pytest.raises(ValueError, match="`weights` of an election must be positive"):
        sign_election(three, [1, -1, 1])
