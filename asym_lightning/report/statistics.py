"""Means with their standard errors, and the paired t-test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Args:
        mean: The mean.
        error: Its standard error; NaN with one value, which says nothing about the spread.
        count: Number of values.
    """

    mean: float
    error: float
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values and its standard error, s / sqrt(n) with n - 1 in the variance.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, error=0.5773502691896258, count=3)
    """
    if not values:
        raise ValueError("there are no values to average.")
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Estimate(statistics.fmean(values), spread / math.sqrt(len(values)), len(values))


@dataclass(frozen=True)
class PairedTest:
    """Difference between two arms, seed by seed.

    Args:
        difference: First minus second, with its standard error over the seeds that both have.
        p_value: Two-sided p of the paired t-test; NaN with fewer than two pairs.
    """

    difference: Estimate
    p_value: float


def paired_test(first: Mapping[int, float], second: Mapping[int, float]) -> PairedTest:
    """Test whether two arms differ, by the differences on the seeds that both have.

    The differences are taken for normal, which few seeds cannot show; p says how surprising a mean
    difference this large is if there is none. With many arms compared, some p is small by chance.

    Args:
        first: Score by seed.
        second: Score by seed.

    Raises:
        ValueError: If the two have no seed in common.

    Example:
        >>> result = paired_test({0: 0.85, 1: 0.86, 2: 0.84}, {0: 0.80, 1: 0.82, 2: 0.81})
        >>> round(result.difference.mean, 3), round(result.p_value, 3)
        (0.04, 0.02)
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError("the two arms have no seed in common, so they cannot be compared in pairs.")
    difference = estimate([first[seed] - second[seed] for seed in seeds])
    if difference.count < 2:
        return PairedTest(difference, math.nan)
    if difference.error == 0:
        return PairedTest(difference, 1.0 if difference.mean == 0 else 0.0)
    return PairedTest(difference, student_p_value(difference.mean / difference.error, difference.count - 1))


def student_p_value(t: float, degrees_of_freedom: int) -> float:
    """Return the two-sided p-value of Student's t, in closed form for whole degrees of freedom.

    >>> round(student_p_value(2.776, 4), 3)  # the 5 % point of four degrees of freedom
    0.05

    Source: Abramowitz and Stegun, equations 26.7.3 and 26.7.4.
    """
    theta = math.atan(abs(t) / math.sqrt(degrees_of_freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    is_odd = degrees_of_freedom % 2
    term = total = cosine if is_odd else 1.0
    for k in range(2 if is_odd else 1, degrees_of_freedom - 1, 2):
        term *= cosine**2 * k / (k + 1)
        total += term
    if not is_odd:
        return max(0.0, 1 - sine * total)
    return max(0.0, 1 - 2 / math.pi * (theta + (sine * total if degrees_of_freedom > 1 else 0.0)))
