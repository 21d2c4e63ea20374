import pytest

from asym_lightning.data import LoaderOptions


def arguments(is_training=True, is_on_gpu=False, **options):
    return LoaderOptions(**options).arguments(is_training=is_training, is_on_gpu=is_on_gpu)


def test_evaluation_has_twice_the_rows_unless_it_says_its_own():
    assert arguments(batch_size=5)["batch_size"] == 5
    assert arguments(batch_size=5, is_training=False)["batch_size"] == 10
    assert arguments(batch_size=5, eval_batch_size=3, is_training=False)["batch_size"] == 3


def test_workers_are_kept_where_there_are_some():
    assert arguments()["persistent_workers"] is False
    assert arguments(num_workers=2)["persistent_workers"] is True
    assert arguments(num_workers=2, persistent_workers=False)["persistent_workers"] is False
    assert arguments(num_workers=2, prefetch_factor=4)["prefetch_factor"] == 4


@pytest.mark.parametrize(
    ("given", "on_cpu", "on_gpu"), [(None, False, True), (True, True, True), (False, False, False)]
)
def test_memory_is_pinned_for_a_gpu_unless_said(given, on_cpu, on_gpu):
    assert arguments(pin_memory=given)["pin_memory"] is on_cpu
    assert arguments(pin_memory=given, is_on_gpu=True)["pin_memory"] is on_gpu


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"^`batch_size` must be at least 1, not 0\.$"),
        ({"eval_batch_size": 0}, r"^`eval_batch_size` must be at least 1 or null, not 0\.$"),
        ({"num_workers": -1}, r"^`num_workers` must be in \[0, 512\], not -1\.$"),
        ({"num_workers": 1, "prefetch_factor": 0}, r"^`prefetch_factor` must be at least 1 or null, not 0\.$"),
        ({"prefetch_factor": 2}, r"^`prefetch_factor` 2 is for workers: set `num_workers` to at least 1, or leave it"),
    ],
)
def test_a_number_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LoaderOptions(**options)


def test_a_value_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"^`num_workers` must be an integer, not 'two'\.$"):
        LoaderOptions(num_workers="two")
