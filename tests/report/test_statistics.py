import math

import pytest
from scipy import stats

from asym_lightning.report.statistics import estimate, paired_test, student_p_value


def test_estimate_equals_scipy():
    values = [0.81, 0.83, 0.80, 0.86, 0.79]
    result = estimate(values)
    assert result.mean == pytest.approx(sum(values) / 5)
    assert result.error == pytest.approx(stats.sem(values))


def test_one_value_has_no_error():
    assert math.isnan(estimate([0.8]).error)


@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 3, 4, 5, 8, 19, 30])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 12.0])
def test_p_value_equals_scipy(t, degrees_of_freedom):
    assert student_p_value(t, degrees_of_freedom) == pytest.approx(2 * stats.t.sf(t, degrees_of_freedom), abs=1e-12)


def test_paired_test_equals_scipy_on_the_common_seeds():
    first = {0: 0.85, 1: 0.86, 2: 0.84, 3: 0.88, 9: 0.1}
    second = {0: 0.80, 1: 0.82, 2: 0.85, 3: 0.83, 7: 0.9}
    common = [0, 1, 2, 3]
    expected = stats.ttest_rel([first[seed] for seed in common], [second[seed] for seed in common])
    result = paired_test(first, second)
    assert result.difference.count == 4
    assert result.p_value == pytest.approx(expected.pvalue)
    assert paired_test(second, first).p_value == pytest.approx(expected.pvalue)


def test_equal_scores_and_single_pairs():
    assert paired_test({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6}).p_value == 1
    assert math.isnan(paired_test({0: 0.5}, {0: 0.6}).p_value)
    with pytest.raises(ValueError, match="no seed in common"):
        paired_test({0: 0.5}, {1: 0.6})
