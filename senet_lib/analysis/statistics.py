"""Statistics over few seeds: intervals, paired comparisons, effect sizes and what could be seen.

The unit is the seed. An error is a fraction, and a difference is the variant's error minus the
plain network's on the same seed: below zero, the variant is better. Nothing here needs fractions,
though: results have the unit of the values given, except where a field says otherwise. The tests
are two-sided; the formulas are those of scipy and statsmodels. Where the seeds are too few or do
not differ, what cannot be computed is None and `note` says why.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_lib.errors import SenetError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FEWEST = 2
FEWEST_SEEDS = 3  # with fewer nothing is said to be established
EXACT_BELOW = 25
# Equal decimal fractions differ by this much after a subtraction or two.
_ROUNDING = 32 * float(np.finfo(float).eps)


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
class Comparison:
    """A variant against its plain network on the seeds both have; see `compare`."""

    n: int
    """Shared seeds."""
    seeds: tuple[int, ...]
    """The shared seeds, ascending."""
    differences: tuple[float, ...]
    """Variant minus plain, a value a seed in the order of `seeds`; unit of the errors."""
    mean: float | None = None
    """Mean of the differences, same unit; None without a shared seed."""
    sd: float | None = None
    """Standard deviation of the differences (n - 1), same unit; None below two seeds."""
    t_interval: Interval | None = None
    """Interval of the mean difference from Student's t with n - 1 degrees of freedom."""
    bootstrap_interval: Interval | None = None
    """Percentile bootstrap interval of the mean difference; too narrow for few seeds."""
    p_paired: float | None = None
    """p-value of the paired t test, in [0, 1]."""
    p_welch: float | None = None
    """p-value of Welch's t test, which leaves the pairing out, in [0, 1]."""
    cohens_d: float | None = None
    """Mean difference over the pooled SD of the two networks; a ratio, signed as the mean."""
    cohens_dz: float | None = None
    """Mean difference over the SD of the differences; a ratio, signed as the mean."""
    hedges_g: float | None = None
    """`cohens_d` with its small-sample correction; a ratio, signed as the mean."""
    detectable: float | None = None
    """Smallest mean difference, without sign, that a paired t test at 5 % finds with 80 % power,
    n being as it is and the true SD of the differences being `sd`; unit of the errors."""
    note: str = ""
    """Why fields are None; empty when all are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Two networks on the same images; see `mcnemar`."""

    n: int
    """Images."""
    both_right: int
    """Images that both networks classify correctly."""
    only_plain_right: int
    """Images that the plain network alone classifies correctly."""
    only_variant_right: int
    """Images that the variant alone classifies correctly."""
    neither_right: int
    """Images that both networks get wrong."""
    difference: float
    """Error of the variant minus error of the plain network, a fraction of the images."""
    statistic: float | None
    """Chi-square with one degree of freedom; None for the exact test."""
    p: float
    """p-value, in [0, 1]; 1 when the networks never disagree."""
    method: str
    """Which form of the test it is."""


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


def interval(values: Iterable[float], level: float = 0.95) -> Interval | None:
    """Mean of values and its interval from Student's t with n - 1 degrees of freedom.

    Args:
        values: one a seed.
        level: nominal coverage, in (0, 1).
    Returns:
        None below two values, and where all are equal, for which the method has no answer.
    Raises:
        SenetError: a value is not a finite number, or the level is out of range.
    """
    from scipy import stats

    _check_share("level", level)
    checked = _checked(dict(enumerate(values)), "value")
    array, n = np.array(list(checked.values())), len(checked)
    if n < FEWEST or not (sd := _sd(array)):
        return None
    mean = float(array.mean())
    low, high = stats.t.interval(level, n - 1, loc=mean, scale=sd / math.sqrt(n))
    return Interval(mean=mean, low=float(low), high=float(high), level=level, method="t", n=n)


def compare(
    plain: Mapping[int, float],
    variant: Mapping[int, float],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Comparison:
    """Compare a variant with its plain network on the seeds they share.

    `cohens_d` is the mean difference over sqrt((s1^2 + s2^2) / 2), s1 and s2 being the standard
    deviations of the two networks over the shared seeds; `hedges_g` multiplies it by
    1 - 3 / (4 df - 1), df = 2n - 2, the usual approximation to Hedges' gamma-function factor (1.3 %
    above it at n = 2, 0.3 % at n = 3). Both treat the networks as independent. `cohens_dz` is the
    mean difference over the SD of the differences; it grows with the correlation of the pairs.

    The bootstrap interval is the percentile one. BCa would estimate a bias and an acceleration from
    n values, which for a handful is noise. With few seeds the percentile interval is too narrow: at
    n = 3 a resample is the lowest seed three times with a chance of 1/27, more than 2.5 %, so that
    the 95 % interval is the range of the three differences, and that covers the centre of a
    symmetric distribution 3 times in 4. Below about ten seeds `t_interval` is the one to read.

    Args:
        plain: error of the plain network by seed, fractions.
        variant: error of the variant by seed, fractions.
        rng: draws the resamples; its state decides the bootstrap interval and nothing else.
        level: nominal coverage of both intervals, in (0, 1).
        resamples: of the bootstrap, at least 1.
    Returns:
        All seeds but the shared ones are left out. With fewer than two, or with differences or
        networks that do not vary, what does not exist is None.
    Raises:
        SenetError: an error is not a finite number, or an argument is out of range.
    Source: Cohen 1988, Statistical Power Analysis, chapter 2 (d and d_z); Hedges 1981 (g); Lakens
        2013 (doi:10.3389/fpsyg.2013.00863) on which is which.
    """
    from scipy import stats

    _check_share("level", level)
    if resamples < 1:
        raise SenetError(f"resamples is {resamples}; it must be at least 1")
    plain = _checked(plain, "plain network, seed")
    variant = _checked(variant, "variant, seed")
    seeds = tuple(sorted(plain.keys() & variant.keys()))
    first = np.array([variant[s] for s in seeds])
    second = np.array([plain[s] for s in seeds])
    differences, n = first - second, len(seeds)
    known: dict[str, Any] = {"n": n, "seeds": seeds, "differences": tuple(differences.tolist())}
    if n:
        known["mean"] = float(differences.mean())
    if n < FEWEST:
        why = f"too few seeds for an interval or a test, at least {FEWEST} are needed"
        return Comparison(**known, note=f"n = {n}: {why if n else 'no seed in common'}")
    known["sd"] = sd = _sd(differences)
    groups = from_summary(first.mean(), _sd(first), n, second.mean(), _sd(second), n)
    known |= {k: getattr(groups, k) for k in ("p_welch", "cohens_d", "hedges_g")}
    if not sd or groups.note:
        same = "each network's error" if groups.note else "the difference"
        note = f"n = {n}: {same} is the same on every seed, which leaves no spread to compare with"
        return Comparison(**known, note=note)
    return Comparison(
        **known,
        t_interval=interval(differences, level),
        bootstrap_interval=_bootstrap(differences, rng, level, resamples),
        p_paired=float(stats.ttest_rel(first, second).pvalue),
        cohens_dz=known["mean"] / sd,
        detectable=detectable_difference(sd, n, paired=True),
    )


def detectable_difference(
    sd: float, n: int, *, power: float = 0.8, alpha: float = 0.05, paired: bool = False
) -> float:
    """The smallest true difference of means that a two-sided t test finds with the power asked for.

    Args:
        sd: true standard deviation over seeds, of either network or, if `paired`, of the
            differences.
        n: seeds of each network, at least 2.
        power: chance of finding the difference, in (alpha, 1).
        alpha: chance of finding one where there is none, in (0, 1).
        paired: a paired test on the differences; else a two-sample test with equal variances.
    Returns:
        The difference without sign, in the unit of `sd`.
    Raises:
        SenetError: an argument is out of range.
    """
    from scipy.optimize import brentq
    from statsmodels.stats.power import TTestIndPower, TTestPower

    _check_share("alpha", alpha)
    _check_share("power", power)
    if n < FEWEST or not 0 <= sd < math.inf or power <= alpha:
        raise SenetError(
            f"n is {n}, sd {sd}, power {power} and alpha {alpha}; needed are at least {FEWEST} "
            "seeds, a finite sd of 0 or above and a power above alpha"
        )
    test = TTestPower() if paired else TTestIndPower()

    def excess(effect: float) -> float:
        return float(test.power(effect, n, alpha / 2, alternative="larger")) - power

    # Not `solve_power`: for some small n it is silently wrong, for statsmodels' two-sided power is
    # NaN where the chance of a result in the wrong direction, left out here, all but vanishes.
    high = 1.0
    while excess(high) < 0:
        high *= 2
    return sd * float(brentq(excess, 0, high))


def mcnemar(plain_correct: "ArrayLike", variant_correct: "ArrayLike") -> McNemar:
    """McNemar's test on the images that two networks of one seed were evaluated on.

    The test is exact (binomial) where the networks disagree on fewer than 25 images, else the
    chi-square test with continuity correction. It is about these two trained networks: how much
    another seed would change either is not in it.

    Args:
        plain_correct: whether the plain network is right, (N,) bool, one an image.
        variant_correct: the same of the variant, images in the same order.
    Raises:
        SenetError: the arrays are not boolean, one-dimensional, of equal length and non-empty.
    Source: McNemar 1947; continuity correction: Edwards 1948.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    plain, variant = np.asarray(plain_correct), np.asarray(variant_correct)
    for array in (plain, variant):
        if array.dtype != bool or array.ndim != 1 or not array.size:
            raise SenetError(
                f"got {array.dtype} of shape {array.shape}; McNemar's test takes one truth value "
                "an image: predictions == labels"
            )
    if plain.size != variant.size:
        raise SenetError(
            f"{plain.size} images of the plain network, {variant.size} of the variant; McNemar's "
            "test takes the same images in the same order"
        )
    both, neither = int((plain & variant).sum()), int((~plain & ~variant).sum())
    only_plain, only_variant = int((plain & ~variant).sum()), int((~plain & variant).sum())
    exact = only_plain + only_variant < EXACT_BELOW
    result = test([[both, only_plain], [only_variant, neither]], exact=exact, correction=True)
    return McNemar(
        n=plain.size,
        both_right=both,
        only_plain_right=only_plain,
        only_variant_right=only_variant,
        neither_right=neither,
        difference=(only_plain - only_variant) / plain.size,
        statistic=None if exact else float(result.statistic),
        p=float(result.pvalue),
        method="exact binomial" if exact else "chi-square with continuity correction",
    )


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """p-values adjusted for a family of tests by Holm's step-down method.

    Args:
        p_values: p-value by name of the test; None where there is none, which is then no member of
            the family.
    Returns:
        The same names in the same order; None stays None.
    Raises:
        SenetError: a p-value is not in [0, 1].
    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    from statsmodels.stats.multitest import multipletests

    family = {name: p for name, p in p_values.items() if p is not None}
    for name, p in family.items():
        if not 0 <= p <= 1:
            raise SenetError(f"the p-value of {name} is {p}; it must be in [0, 1], or None")
    if not family:
        return dict(p_values)
    adjusted = multipletests(list(family.values()), method="holm")[1].tolist()
    return {**p_values, **dict(zip(family, adjusted, strict=True))}


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
    _checked(given, "the summary's")
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
        _checked(dict(zip(("cost", "error"), point, strict=True)), f"point {i},")
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: tuple(points[i])):
        best = points[front[-1]] if front else (math.inf, math.inf)
        if points[i][1] < best[1] or tuple(points[i]) == tuple(best):
            front.append(i)
    return front


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise SenetError(f"{name} is {value}; it must be between 0 and 1")


def _checked(values: Mapping[object, float], what: str) -> dict:
    """The values as floats; refuses one that is not a finite number, by name."""
    checked = {key: float(value) for key, value in values.items()}
    for key, value in checked.items():
        if not math.isfinite(value):
            raise SenetError(f"{what} {key} is {value}; statistics need finite numbers")
    return checked


def _sd(values: np.ndarray) -> float:
    """Standard deviation (n - 1); exactly 0 where the values differ by rounding alone."""
    if np.ptp(values) <= _ROUNDING * max(1.0, float(np.abs(values).max())):
        return 0.0
    return float(values.std(ddof=1))


def _bootstrap(
    differences: np.ndarray, rng: np.random.Generator, level: float, resamples: int
) -> Interval:
    """Percentile bootstrap interval of the mean."""
    from scipy import stats

    # scipy 1.15 calls the generator `rng`, and takes the older name as well.
    result = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        random_state=rng,
    )
    low, high = map(float, result.confidence_interval)
    method = f"percentile bootstrap, {resamples:,} resamples"
    mean = float(differences.mean())
    return Interval(mean=mean, low=low, high=high, level=level, method=method, n=len(differences))
