"""Private training beside Opacus: both arms run, and the page has each at its best rate."""

import pytest

from benchmarks import private


@pytest.mark.slow
@pytest.mark.parametrize("arm", private.RATES)
def test_both_arms_train(arm) -> None:
    pytest.importorskip("opacus")
    run = private.measure(arm, 8.0, 0.01, 0, 1)
    assert 0.1 < run.test <= 1 and run.milliseconds > 0


def test_the_page_has_each_arm_at_the_rate_that_is_best_in_validation() -> None:
    runs = [
        private.Run(private.OURS, 8.0, 0.1, 0.5, 0.9, 1.0),
        private.Run(private.OURS, 8.0, 0.2, 0.7, 0.4, 1.0),
        private.Run(private.OPACUS, 8.0, 0.1, 0.5, 0.3, 2.0),
    ]
    lines = private.page(runs, "command", "machine").splitlines()
    assert lines[-2:] == [
        f"| 8 | {private.OURS} | 0.2 | 0.400 | 1.0 |",
        f"| 8 | {private.OPACUS} | 0.1 | 0.300 | 2.0 |",
    ]
