"""The joint distribution behind Dunnett's test: several networks against their controls.

`scipy.stats.dunnett` has one control and needs the values themselves; here are any number of
controls, and designs that nobody has run yet.
"""

# Legend: B bounds, k differences, s the estimated over the true SD.

import math
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(128)
NORMAL = _NODES, _WEIGHTS / _WEIGHTS.sum()
"""Nodes and weights of an integral over the standard normal distribution."""
Families = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
"""Of each control its seeds, and of its networks (seeds, how many networks have as many)."""


def within(bounds: np.ndarray, families: Families, df: int) -> np.ndarray:
    """Chance, (B,), that no standardised difference exceeds a bound, (B,), where no network
    differs.

    Given s and a control's own deviation z, the differences of its networks are independent, so
    that the multivariate t distribution is an integral over two numbers, taken by Gauss's rule.
    """
    z, z_weights = NORMAL
    s, s_weights = chi_nodes(df)
    reach = np.asarray(bounds, float)[:, None, None] * s[:, None]  # (B, s, 1)
    inside = np.ones(reach.shape[:2])
    for n_control, networks in families:
        product = np.ones((*inside.shape, len(z)))
        for n, count in networks:
            own, shift = math.sqrt(n_control / (n + n_control)), math.sqrt(n / (n + n_control))
            upper, lower = ((side * reach + shift * z) / own for side in (1, -1))
            product *= (ndtr(upper) - ndtr(lower)) ** count
        inside *= product @ z_weights
    return np.clip(inside @ s_weights, 0, 1)


@lru_cache(maxsize=4096)
def critical_value(families: Families, df: int, level: float) -> float:
    """The bound that all standardised differences stay within with a chance of `level`, in (0, 1);
    other arguments as in `within`, the design not empty."""

    def excess(bound: float) -> float:
        return float(within(np.array([bound]), families, df)[0]) - level

    high = 2.0
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0, high, xtol=1e-7))


@lru_cache(maxsize=4096)
def chi_nodes(df: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a mean over s, the square root of a chi-square over its degrees of
    freedom, at least 1: both (96,), the weights adding up to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    low, high = (math.sqrt(stats.chi2.ppf(q, df) / df) for q in (1e-14, 1 - 1e-14))
    s = low + (high - low) * ((nodes + 1) / 2) ** 2  # denser near zero, where df is small
    log_density = stats.chi2.logpdf(df * s**2, df) + np.log(s)
    weights = weights * np.sqrt((s - low) / (high - low)) * np.exp(log_density - log_density.max())
    return s, weights / weights.sum()
