"""Statistics over few seeds: an interval, the sign-flip test, the cost of an error.

The unit is the seed; results have the unit of the values. `contrasts` compares whole studies.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from senet_lib.errors import SenetError

FEWEST_SEEDS = 3  # with fewer nothing is said to be established
MOST_FLIPPED = 20
ROUNDING = 32 * float(np.finfo(float).eps)  # between equal decimal fractions after a subtraction


def interval(
    values: Iterable[float], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """The 95 % interval of a mean, from Student's t with n - 1 degrees of freedom.

    Args:
        values: one a seed, finite.
        bounds: what the mean cannot leave, (0, 1) for an error; the ends are cut there.
    Returns:
        None below two values, and where all are equal, for which the method has no answer.
    """
    array = checked(dict(enumerate(values)), "value")
    if len(array) < 2 or not standard_deviation(array):
        return None
    low, high = np.clip(stats.ttest_1samp(array, 0).confidence_interval(0.95), *bounds)
    return float(low), float(high)


def sign_flip(differences: Iterable[float]) -> float:
    """Exact p-value of the sign-flip test that paired differences are symmetric about zero.

    Of all 2^n ways to give the differences, one a seed, 1 to 20, their signs, the share whose mean
    is as far from zero. It cannot fall below 2 / 2^n, so that five pairs never reach 5 %.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    values = checked(dict(enumerate(differences)), "difference")
    if not 1 <= len(values) <= MOST_FLIPPED:
        raise SenetError(f"{len(values)} differences; the sign-flip test takes 1 to {MOST_FLIPPED}")
    sums = np.zeros(1)
    for value in np.abs(values):
        sums = np.concatenate([sums + value, sums - value])
    least = abs(values.sum()) - ROUNDING * np.abs(values).sum()
    return float((np.abs(sums) >= least).mean())


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, error) points that none beats, by ascending cost. One beats another if
    it is no higher in both and lower in one."""
    for i, point in enumerate(points):
        checked(dict(zip(("cost", "error"), point, strict=True)), f"point {i},")
    given = np.array(points, float).reshape(-1, 2)
    as_good, better = given[None] <= given[:, None], given[None] < given[:, None]
    beaten = (as_good.all(2) & better.any(2)).any(1)
    return sorted(np.flatnonzero(~beaten).tolist(), key=lambda i: given[i, 0])


def check_rng(rng: np.random.Generator) -> None:
    """SenetError for what is no generator, such as a seed."""
    if not isinstance(rng, np.random.Generator):
        raise SenetError(f"rng must be a Generator, such as np.random.default_rng(0), not {rng!r}")


def checked(values: Mapping[object, float], what: str) -> np.ndarray:
    """The values as floats; a SenetError that calls one `what` and its key if it is not finite."""
    for key, value in values.items():
        if not math.isfinite(value):
            raise SenetError(f"{what} {key} is {value}; statistics need finite numbers")
    return np.array(list(values.values()), float)


def standard_deviation(values: np.ndarray) -> float:
    """Standard deviation (n - 1); exactly 0 where the values differ by rounding alone."""
    if np.ptp(values) <= ROUNDING * max(1.0, float(np.abs(values).max())):
        return 0.0
    return float(values.std(ddof=1))
