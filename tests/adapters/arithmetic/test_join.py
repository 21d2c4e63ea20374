import peft
import pytest
import torch
from torch import nn

from asym_lightning.adapters import write_adapter
from asym_lightning.adapters.arithmetic import concatenation, projection
from tests.adapters.arithmetic.adapters import assert_same, combination, plain, update, written

WEIGHTS = [0.5, -1.0, 2.0]


@pytest.fixture
def three(tmp_path):
    options = ({"seed": 1}, {"seed": 2, "rank": 2, "alpha": 5}, {"scheme": "hB_zero_hA_he", "rank": 4})
    return [written(tmp_path, number, **option) for number, option in enumerate(options)]


def test_concatenation_is_exact_at_the_sum_of_the_ranks(three, tmp_path):
    updates = [update(adapter, tmp_path) for adapter in three]
    joined = concatenation(three, WEIGHTS)
    assert_same(update(joined, tmp_path), combination(updates, WEIGHTS))
    assert joined.peft_config["r"] == 2 * (3 + 2 + 4)  # of q and v side by side


def test_projection_is_the_best_of_its_rank(three, tmp_path):
    updates = [update(adapter, tmp_path) for adapter in three]
    expected = combination(updates, WEIGHTS)
    found = update(projection(three, 3, WEIGHTS), tmp_path)
    for name, dense in expected.items():
        if name != "head":
            left, values, right = torch.linalg.svd(dense)
            best = left[:, :3] * values[:3] @ right[:3]
            assert (found[name] - best).norm() < 1e-5 * best.norm()


def test_projection_has_the_first_adapters_rank_unless_told(three):
    assert projection(three).peft_config["r"] == 2 * 3


def test_peft_reads_it_and_computes_the_same(tmp_path):
    adapters = [written(tmp_path, n, model=plain(), seed=n, targets=["0", "2"], heads=[]) for n in range(2)]
    expected = combination([update(adapter, tmp_path, plain()) for adapter in adapters], [1, 1])
    write_adapter(concatenation(adapters), tmp_path / "joined")
    model = peft.PeftModel.from_pretrained(plain(), tmp_path / "joined")
    for name in ("0", "2"):
        found = model.base_model.model.get_submodule(name).get_delta_weight("default").double()
        assert (found - expected[name]).norm() < 1e-5 * expected[name].norm()


def test_convolutions_keep_their_shapes(tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1))

    adapters = [written(tmp_path, n, model=model(), seed=n, targets=["0"], rank=2, heads=[]) for n in range(2)]
    updates = [update(adapter, tmp_path, model()) for adapter in adapters]
    assert_same(update(concatenation(adapters), tmp_path, model()), combination(updates, [1, 1]))


def test_what_can_not_be_joined_is_refused(tmp_path):
    compact = [written(tmp_path, n, compact=True, seed=n) for n in range(2)]
    with pytest.raises(ValueError, match=r"leaves out its A's, which are to be joined: save it without `--compact`"):
        concatenation(compact)
    grouped = [written(tmp_path, 3, model=nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), targets=["0"], rank=2, heads=[])]
    with pytest.raises(ValueError, match="adapts `0` by groups or by experts"):
        concatenation(grouped)
    with pytest.raises(ValueError, match="`rank` must be at least 1, not -1"):
        projection([written(tmp_path, 4)], -1)
