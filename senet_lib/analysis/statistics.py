"""Statistics over few seeds: an interval, two-sided tests, effect sizes, the cost of an error.

The unit is the seed; results have the unit of the values. `contrasts` compares whole studies.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from senet_lib.errors import SenetError

FEWEST_SEEDS = 3  # with fewer nothing is said to be established
MOST_FLIPPED = 20
ROUNDING = 32 * float(np.finfo(float).eps)  # between equal decimal fractions after a subtraction


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


class SummaryTest(NamedTuple):
    """What two means and standard deviations imply: p of Welch's test; statistic, degrees of
    freedom and p of Student's, which takes the two SDs for one; difference over the pooled SD."""

    p_welch: float
    t_pooled: float
    df_pooled: int
    p_pooled: float
    cohens_d: float


def interval(
    values: Iterable[float], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Interval | None:
    """Mean of values and its 95 % interval from Student's t with n - 1 degrees of freedom.

    Args:
        values: one a seed, finite.
        bounds: what the mean cannot leave, (0, 1) for an error; the ends are cut there.
    Returns:
        None below two values, and where all are equal, for which the method has no answer.
    """
    array = np.array(list(checked(dict(enumerate(values)), "value").values()))
    if len(array) < 2 or not (sd := standard_deviation(array)):
        return None
    mean, n = float(array.mean()), len(array)
    ends = stats.t.interval(0.95, n - 1, loc=mean, scale=sd / math.sqrt(n))
    return Interval(mean, *(min(max(float(end), bounds[0]), bounds[1]) for end in ends))


def sign_flip(differences: Iterable[float]) -> float:
    """Exact p-value of the sign-flip test that paired differences are symmetric about zero.

    Of all 2^n ways to give the differences, one a seed, 1 to 20, their signs, the share whose mean
    is as far from zero. It cannot fall below 2 / 2^n, so that five pairs never reach 5 %.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    values = np.array(list(checked(dict(enumerate(differences)), "difference").values()))
    if not 1 <= len(values) <= MOST_FLIPPED:
        raise SenetError(f"{len(values)} differences; the sign-flip test takes 1 to {MOST_FLIPPED}")
    sums = np.zeros(1)
    for value in np.abs(values):
        sums = np.concatenate([sums + value, sums - value])
    least = abs(values.sum()) - ROUNDING * np.abs(values).sum()
    return float((np.abs(sums) >= least).mean())


def from_summary(
    mean_1: float, sd_1: float, n_1: int, mean_2: float, sd_2: float, n_2: int
) -> SummaryTest:
    """What two published means, SDs (n - 1) and counts imply, without the values behind them;
    differences are first minus second. SenetError where nothing varies or a mean is of one value.

    Source: Cohen 1988, chapter 2; Welch 1947.
    """
    checked({"mean_1": mean_1, "sd_1": sd_1, "mean_2": mean_2, "sd_2": sd_2}, "the summary's")
    if min(sd_1, sd_2) < 0 or not max(sd_1, sd_2) or min(n_1, n_2) < 2:
        raise SenetError(
            f"SDs {sd_1} and {sd_2}, counts {n_1} and {n_2}: no SD is below 0, one above, and each "
            "mean is of two values or more"
        )
    df = n_1 + n_2 - 2
    given = mean_1, sd_1, n_1, mean_2, sd_2, n_2
    welch, pooled = (stats.ttest_ind_from_stats(*given, equal_var=e) for e in (False, True))
    variance = ((n_1 - 1) * sd_1**2 + (n_2 - 1) * sd_2**2) / df
    return SummaryTest(
        p_welch=float(welch.pvalue),
        t_pooled=float(pooled.statistic),
        df_pooled=df,
        p_pooled=float(pooled.pvalue),
        cohens_d=float(mean_1 - mean_2) / math.sqrt(variance),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, error) points that none beats, by ascending cost: that no other is at
    least as low as in both and lower than in one."""
    for i, point in enumerate(points):
        checked(dict(zip(("cost", "error"), point, strict=True)), f"point {i},")
    given = np.array(points, float).reshape(-1, 2)
    as_good, better = given[None] <= given[:, None], given[None] < given[:, None]
    beaten = (as_good.all(2) & better.any(2)).any(1)
    return sorted(np.flatnonzero(~beaten).tolist(), key=lambda i: given[i, 0])


def checked(values: Mapping[object, float], what: str) -> dict:
    """The values as floats; a SenetError that calls one `what` and its key if it is not finite."""
    numbers = {key: float(value) for key, value in values.items()}
    for key, value in numbers.items():
        if not math.isfinite(value):
            raise SenetError(f"{what} {key} is {value}; statistics need finite numbers")
    return numbers


def standard_deviation(values: np.ndarray) -> float:
    """Standard deviation (n - 1); exactly 0 where the values differ by rounding alone."""
    if np.ptp(values) <= ROUNDING * max(1.0, float(np.abs(values).max())):
        return 0.0
    return float(values.std(ddof=1))
