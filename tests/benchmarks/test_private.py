"""Private training beside Opacus: both arms run, and the page has each at its best rate."""

import pytest

from benchmarks import private


@pytest.mark.slow
@pytest.mark.parametrize("arm", private.RATES)
def test_both_arms_train(arm) -> None:
    pytest.importorskip("opacus")
    run = private.measure(arm, 8.0, 0.01, 0, 1)
    assert 0.1 < run.test <= 1 and run.milliseconds > 0 and run.peak > 1e6


def test_the_page_has_each_arm_at_the_rate_that_is_best_in_validation() -> None:
    runs = [
        private.Run(private.OURS, 8.0, 0.1, 0.5, 0.9, 1.0, 1),
        private.Run(private.OURS, 8.0, 0.2, 0.7, 0.4, 1.0, 1500000),
        private.Run(private.OURS, 8.0, 0.2, 0.7, 0.6, 1.0, 1500000),
        private.Run(private.OPACUS, 8.0, 0.1, 0.5, 0.3, 2.0, 3000000),
        private.Run(private.OPACUS, 8.0, 0.1, 0.5, 0.3, 2.0, 3000000),
    ]
    lines = private.page(runs, "command", "machine").splitlines()
    assert lines[-2:] == [
        f"| 8 | {private.OURS} | 0.2 | 0.500 ± 0.100 | 1.0 | 1.5 |",
        f"| 8 | {private.OPACUS} | 0.1 | 0.300 ± 0.000 | 2.0 | 3.0 |",
    ]
