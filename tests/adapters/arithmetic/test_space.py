import copy
import re
from dataclasses import replace

import pytest
import torch

from asym_lightning.adapters.arithmetic import mean, weighted_sum
from tests.adapters.arithmetic.adapters import plain, written
from tests.adapters.models import tiny_vit


def different_backbone():
    model = tiny_vit()
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.mul_(1.1)
    return model


def of_four_classes():
    model = tiny_vit()
    model.reset_classifier(4)
    return model


@pytest.mark.parametrize("compact", [False, True], ids=["full", "compact"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"seed": 1}, r"don't share A of `blocks\.0\.attn\.qkv.*` \(`seed` is 0 and 1\); join them"),
        ({"scheme": "hB_zero_A_V"}, r"`scheme` is 'hB_zero_A_rand' and 'hB_zero_A_V'"),
        ({"rank": 2}, r"are of different ranks: `blocks\.0\.attn\.qkv.*` has \d and \d"),
        ({"targets": ["q", "v"]}, r"adapt different layers: only `.*/0` has `blocks\.0\.mlp\.fc1`"),
        ({"model": different_backbone()}, r"of different backbones: the weight of `blocks\.0\.attn\.qkv` starts with"),
        ({"model": of_four_classes()}, r"different heads: `head\.bias` is \(5,\) and \(4,\); take"),
        (
            {"heads": []},
            r"different heads: only `.*/0` has `head\.bias`, `head\.weight`; take those of one: `heads_of`",
        ),
    ],
)
def test_what_differs_is_named(options, reason, compact, tmp_path):
    options = {**options, "model": copy.deepcopy(options.get("model"))}
    adapters = [written(tmp_path, 0, compact=compact), written(tmp_path, 1, compact=compact, **options)]
    with pytest.raises(ValueError, match=reason):
        weighted_sum(adapters)


def test_heads_that_differ_are_no_hindrance_where_one_adapters_are_taken(tmp_path):
    adapters = [written(tmp_path, 0), written(tmp_path, 1, model=of_four_classes())]
    assert weighted_sum(adapters, heads_of=1).others["head.weight"].shape == (4, 24)


def test_a_trained_A_is_refused(tmp_path):
    adapters = [written(tmp_path, number, scheme="hB_zero_hA_rand") for number in range(2)]
    with pytest.raises(ValueError, match=re.escape("(`hB_zero_hA_rand` trains A)")):
        mean(adapters)


def test_compact_and_full_ones_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match=r"`.*/1` leaves out its A's and `.*/0` does not"):
        mean([written(tmp_path, 0), written(tmp_path, 1, compact=True)])


def test_weights_are_one_each_and_of_a_mean_not_zero(tmp_path):
    adapters = [written(tmp_path, number) for number in range(2)]
    with pytest.raises(ValueError, match="`weights` must be 2, one for each adapter, not 1"):
        weighted_sum(adapters, [1.0])
    with pytest.raises(ValueError, match="must not add up to zero"):
        mean(adapters, [1, -1])
    with pytest.raises(ValueError, match="no mean of the heads; take those of one"):
        weighted_sum(adapters, [1, -1])
    with pytest.raises(ValueError, match="`heads_of` must be the number of an adapter, 0 to 1, not 2"):
        weighted_sum(adapters, heads_of=2)
    with pytest.raises(ValueError, match="no adapter to combine"):
        weighted_sum([])


def test_compact_alphas_by_pattern_are_not_guessed(tmp_path):
    adapters = [written(tmp_path, n, compact=True, alpha_pattern={"q": 2 + n}) for n in range(2)]
    with pytest.raises(ValueError, match="have an `alpha_pattern`: save them in full"):
        weighted_sum(adapters)
    same = [written(tmp_path, n, compact=True, alpha_pattern={"q": 2}) for n in range(2)]
    weighted_sum(same)


def test_backbones_are_told_apart_by_name_where_nothing_else_is_known(tmp_path):
    adapters = [written(tmp_path, n, model=plain(), targets=["0"], heads=[]) for n in range(2)]
    renamed = [
        replace(a, backbone={}, peft_config={**a.peft_config, "base_model_name_or_path": name})
        for a, name in zip(adapters, ("one", "two"), strict=True)
    ]
    with pytest.raises(ValueError, match="of different backbones: `one` and `two`"):
        weighted_sum(renamed)
