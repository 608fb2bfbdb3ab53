"""Statistics over few seeds: an interval, tests, effect sizes and the cost that an error is worth.

The unit is the seed; results have the unit of the values given. The tests are two-sided; the
formulas are those of scipy and statsmodels. Where the seeds are too few or do not differ, what
cannot be computed is None. Whole studies are compared in `contrasts`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.errors import SenetError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FEWEST = 2
FEWEST_SEEDS = 3  # with fewer nothing is said to be established
MOST_FLIPPED = 20
# Equal decimal fractions differ by this much after a subtraction or two.
ROUNDING = 32 * float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    """The estimate the interval is about, in the unit of the values."""
    low: float
    """Lower end, in the same unit."""
    high: float
    """Upper end, in the same unit."""
    level: float
    """Nominal coverage, in (0, 1)."""
    method: str
    """How the ends were found."""
    n: int
    """Values the mean is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Two networks on the same images; see `mcnemar`."""

    n: int
    """Images."""
    both_right: int
    """Images that both networks classify correctly."""
    only_control_right: int
    """Images that the control alone classifies correctly."""
    only_variant_right: int
    """Images that the variant alone classifies correctly."""
    neither_right: int
    """Images that both networks get wrong."""
    difference: float
    """Error of the variant minus error of the control, a fraction of the images."""
    p: float
    """Exact p-value, in [0, 1]; 1 where each alone is right as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryTest:
    """What two means and standard deviations imply, first minus second; see `from_summary`."""

    n_1: int
    """Values behind the first mean."""
    n_2: int
    """Values behind the second mean."""
    difference: float
    """First mean minus second, in their unit."""
    t_welch: float | None = None
    """Statistic of Welch's test."""
    df_welch: float | None = None
    """Its degrees of freedom, by Welch and Satterthwaite."""
    p_welch: float | None = None
    """Its p-value, in [0, 1]."""
    t_pooled: float | None = None
    """Statistic of Student's test, which takes the two SDs for one."""
    df_pooled: int | None = None
    """Its degrees of freedom, n_1 + n_2 - 2."""
    p_pooled: float | None = None
    """Its p-value, in [0, 1]."""
    cohens_d: float | None = None
    """Difference over the pooled SD; a ratio."""
    hedges_g: float | None = None
    """`cohens_d` with its small-sample correction; a ratio."""
    note: str = ""
    """Why fields are None; empty when all are there."""


def interval(
    values: Iterable[float],
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval | None:
    """Mean of values and its interval from Student's t with n - 1 degrees of freedom.

    Args:
        values: one a seed.
        level: nominal coverage, in (0, 1).
        bounds: what the mean cannot leave, (0, 1) for an error; the ends are cut there, which
            loses no coverage.
    Returns:
        None below two values, and where all are equal, for which the method has no answer.
    Raises:
        SenetError: a value is not a finite number, or the level is out of range.
    """
    from scipy import stats

    check_share("level", level)
    array = np.array(list(checked(dict(enumerate(values)), "value").values()))
    n = len(array)
    if n < FEWEST or not (sd := standard_deviation(array)):
        return None
    mean = float(array.mean())
    low, high = stats.t.interval(level, n - 1, loc=mean, scale=sd / math.sqrt(n))
    low, high = (min(max(float(end), bounds[0]), bounds[1]) for end in (low, high))
    return Interval(mean=mean, low=low, high=high, level=level, method="t", n=n)


def sign_flip(differences: Iterable[float]) -> float:
    """Exact p-value of the sign-flip test that paired differences are symmetric about zero.

    Of all 2^n ways to give the differences their signs, the share whose mean is as far from zero.
    It assumes no distribution, and cannot fall below 2 / 2^n, so that five pairs never reach 5 %.

    Args:
        differences: one a seed, at least 1 and at most 20.
    Raises:
        SenetError: there are none or too many, or one is not a finite number.
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


def mcnemar(control_correct: "ArrayLike", variant_correct: "ArrayLike") -> McNemar:
    """McNemar's test on the images that two networks of one seed were evaluated on.

    Exact: of the images that one of them alone gets right, the control has a binomial share. It is
    about these two trained networks: how much another seed would change either is not in it.

    Args:
        control_correct: whether the control is right, (N,) bool, one an image.
        variant_correct: the same of the variant, images in the same order.
    Raises:
        SenetError: the arrays are not boolean, one-dimensional, of equal length and non-empty.
    Source: McNemar 1947, Psychometrika 12:153.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    control, variant = np.asarray(control_correct), np.asarray(variant_correct)
    for array in (control, variant):
        if array.dtype != bool or array.ndim != 1 or not array.size:
            raise SenetError(
                f"got {array.dtype} of shape {array.shape}; McNemar's test takes one truth value "
                "an image: predictions == labels"
            )
    if control.size != variant.size:
        raise SenetError(
            f"{control.size} images of the control, {variant.size} of the variant; McNemar's "
            "test takes the same images in the same order"
        )
    both, neither = int((control & variant).sum()), int((~control & ~variant).sum())
    only_control, only_variant = int((control & ~variant).sum()), int((~control & variant).sum())
    result = test([[both, only_control], [only_variant, neither]], exact=True)
    return McNemar(
        n=control.size,
        both_right=both,
        only_control_right=only_control,
        only_variant_right=only_variant,
        neither_right=neither,
        difference=(only_control - only_variant) / control.size,
        p=float(result.pvalue),
    )


def from_summary(
    mean_1: float, sd_1: float, n_1: int, mean_2: float, sd_2: float, n_2: int
) -> SummaryTest:
    """What published means and standard deviations imply, without the values behind them.

    Args:
        mean_1: first mean; the difference is first minus second.
        sd_1: its standard deviation (n - 1), in the unit of the means.
        n_1: values it is the mean of.
        mean_2: second mean.
        sd_2: its standard deviation.
        n_2: values it is the mean of.
    Returns:
        Welch's and Student's test, Cohen's d = difference / sqrt(((n_1 - 1) sd_1^2 +
        (n_2 - 1) sd_2^2) / (n_1 + n_2 - 2)), and Hedges' g as in `compare`; None where a mean is of
        fewer than two values, or neither varies.
    Raises:
        SenetError: a number is not finite, an SD is negative or a count is below 1.
    Source: Cohen 1988, chapter 2; Hedges 1981; Welch 1947.
    """
    from scipy import stats
    from statsmodels.stats.meta_analysis import effectsize_smd

    given = {"mean_1": mean_1, "sd_1": sd_1, "mean_2": mean_2, "sd_2": sd_2}
    checked(given, "the summary's")
    if min(sd_1, sd_2) < 0 or min(n_1, n_2) < 1:
        raise SenetError(
            f"SDs {sd_1} and {sd_2}, counts {n_1} and {n_2}: an SD is 0 or above, a count 1 or more"
        )
    df = n_1 + n_2 - 2
    variance = ((n_1 - 1) * sd_1**2 + (n_2 - 1) * sd_2**2) / max(df, 1)
    note = ""
    if min(n_1, n_2) < FEWEST:
        note = f"n = {min(n_1, n_2)}: too few values for a test, at least {FEWEST} are needed"
    elif not variance:
        note = "both standard deviations are 0, so that no test and no effect size exists"
    difference = float(mean_1 - mean_2)
    if note:
        return SummaryTest(n_1=n_1, n_2=n_2, difference=difference, note=note)
    summary = (mean_1, sd_1, n_1, mean_2, sd_2, n_2)
    welch = stats.ttest_ind_from_stats(*summary, equal_var=False)
    pooled = stats.ttest_ind_from_stats(*summary)
    share = (sd_1**2 / n_1) / (sd_1**2 / n_1 + sd_2**2 / n_2)
    return SummaryTest(
        n_1=n_1,
        n_2=n_2,
        difference=difference,
        t_welch=float(welch.statistic),
        df_welch=float(1 / (share**2 / (n_1 - 1) + (1 - share) ** 2 / (n_2 - 1))),
        p_welch=float(welch.pvalue),
        t_pooled=float(pooled.statistic),
        df_pooled=df,
        p_pooled=float(pooled.pvalue),
        cohens_d=difference / math.sqrt(variance),
        hedges_g=float(effectsize_smd(*summary)[0]),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that none beats, lower being better on both axes.

    A point is beaten by another that is at least as good in cost and in error and better in one.
    Equal points do not beat each other: either all of them are returned or none.

    Args:
        points: (cost, error) of each network.
    Returns:
        Indices into `points`, by ascending cost; equal points in the order given.
    Raises:
        SenetError: a coordinate is not a finite number.
    """
    for i, point in enumerate(points):
        checked(dict(zip(("cost", "error"), point, strict=True)), f"point {i},")
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: tuple(points[i])):
        best = points[front[-1]] if front else (math.inf, math.inf)
        if points[i][1] < best[1] or tuple(points[i]) == tuple(best):
            front.append(i)
    return front


def check_share(name: str, value: float) -> None:
    """Refuse what is not between 0 and 1.

    Args:
        name: what it is.
        value: of it.
    Raises:
        SenetError: it is 0, 1 or beyond.
    """
    if not 0 < value < 1:
        raise SenetError(f"{name} is {value}; it must be between 0 and 1")


def checked(values: Mapping[object, float], what: str) -> dict:
    """The values as floats.

    Args:
        values: by name.
        what: comes before the name in the error.
    Raises:
        SenetError: one is not a finite number.
    """
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
