import numpy as np
import pytest

from asym_lightning.data.tokens.length_bucketing import BATCHES_SORTED_TOGETHER, LengthBucketSampler

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


@pytest.mark.parametrize(("count", "batch_size"), [(1003, 1), (1003, 10), (1000, 10), (501, 10), (7, 10), (0, 4)])
def test_order_is_that_of_sorted_stretches_in_shuffled_batches(count, batch_size):
    # As it was first written, with a list for each batch: runs of then are resumed in it.
    random, stretch = np.random.default_rng([3, 0]), BATCHES_SORTED_TOGETHER * batch_size
    rows, batches = random.permutation(count).tolist(), []
    for start in range(0, count, stretch):
        together = sorted(rows[start : start + stretch], key=lambda row: LENGTHS[row])
        batches += [together[i : i + batch_size] for i in range(0, len(together), batch_size)]
    full, rest = ([b for b in batches if (len(b) == batch_size) is is_full] for is_full in (True, False))
    random.shuffle(full)
    order = list(LengthBucketSampler(LENGTHS[:count], batch_size, seed=3))
    assert order == [row for batch in full + rest for row in batch] and all(type(row) is int for row in order)
