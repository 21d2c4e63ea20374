import numpy as np
import pytest

from asym_lightning.data.tokens.length_bucketing import LengthBucketSampler

LENGTHS = np.random.default_rng(0).integers(5, 120, 1003)


def padding_share(order, batch_size):
    batches = [LENGTHS[order[i : i + batch_size]] for i in range(0, len(order), batch_size)]
    return 1 - LENGTHS.sum() / sum(len(batch) * batch.max() for batch in batches)


def test_each_row_comes_once_and_batches_hold_little_padding():
    order = list(LengthBucketSampler(LENGTHS, batch_size=10))
    assert sorted(order) == list(range(1003))
    assert padding_share(order, 10) < 0.05 < 0.3 < padding_share(list(range(1003)), 10)


def test_order_depends_on_seed_and_epoch_alone():
    first, again = LengthBucketSampler(LENGTHS, 10, seed=3), LengthBucketSampler(LENGTHS, 10, seed=3)
    epochs = [list(first), list(first)]
    assert epochs[0] != epochs[1] != list(LengthBucketSampler(LENGTHS, 10, seed=4))
    again.set_epoch(1)  # as after a resume
    assert list(again) == epochs[1]


@pytest.mark.parametrize("count", [1, 9, 10, 11])
def test_small_sets_are_complete(count):
    assert sorted(LengthBucketSampler(LENGTHS[:count], 10)) == list(range(count))
