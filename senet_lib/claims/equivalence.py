"""When a measured figure counts as the claimed one, and how often it would by chance.

A claim of a mean is reproduced if two one-sided tests at 5 % (TOST) find the mean within a margin
of the printed figure: its 90 % interval lies there whole. It is not reproduced if the 95 % interval
has no point in common with what the printed digits stand for. Else more seeds are needed. A
standard deviation is judged likewise by the chi-square distribution, its margin being a factor.

What would happen were the claim false is told for a definite falsehood: a mean that is off by twice
the margin (of a range: by the margin beyond its end), a standard deviation of twice the claimed
one, a count anywhere within a factor of two, equally likely in its logarithm.
"""

import math
from dataclasses import dataclass

from senet_lib.analysis.dunnett import chi_nodes
from senet_lib.claims.claim import Claim, is_range

MARGINS = {
    "error": 0.2,
    "sota": 0.2,
    "difference": 0.2,
    "accuracy": 1.0,
    "epoch-accuracy": 1.0,
    "epoch-loss": 0.02,
    "localisation": 0.05,
}
"""Stated margins, in the claim's unit. 0.2 points are less than half of the 0.47 that the second
source claims for its gates: the plain network's error is never taken for the gated one's."""
SPREAD_FACTOR = 1.5
"""Within which a standard deviation counts as the claimed one."""
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean, or a difference of means, as measured."""

    number: float
    """In the claim's unit."""
    se: float
    """Its standard error, likewise; 0 where nothing varies."""
    df: int
    """Degrees of freedom of the standard error, at least 1."""

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """Student's interval.

        Args:
            level: coverage, in (0, 1).
        """
        half = self._t(level) * self.se
        return self.number - half, self.number + half

    def _t(self, level: float) -> float:
        from scipy import stats

        return float(stats.t.ppf((1 + level) / 2, self.df))


def margin(claim: Claim) -> float:
    """The stated margin of a claim of a mean."""
    kind = claim.measure
    if kind == "epoch":
        kind = "epoch-loss" if claim.column == "train_loss" else "epoch-accuracy"
    return MARGINS[kind]


def _reach(claim: Claim) -> float:
    """How far from the middle a mean may lie; a claimed range is its own margin."""
    if is_range(claim.printed or claim.value):
        return (claim.high - claim.low) / 2
    return margin(claim)


def agrees(claim: Claim, found: Estimate) -> bool | None:
    """Whether a mean is the claimed one; None where more seeds are needed.

    Args:
        claim: of a mean or a difference.
        found: what was measured.
    """
    low, high = found.interval(1 - 2 * ALPHA)
    if claim.middle - _reach(claim) <= low and high <= claim.middle + _reach(claim):
        return True
    return None if claim.meets(*found.interval()) else False


def mean_if_false(claim: Claim, found: Estimate, verdict: bool) -> float:
    """Chance that `agrees` answers likewise if the true mean is off by twice the margin.

    Args:
        claim: of a mean or a difference.
        found: what was measured; its standard error is taken for the true one.
        verdict: what `agrees` answered.
    """
    from scipy.special import ndtr

    reach, half_digit = _reach(claim), (claim.high - claim.low) / 2
    off = reach + margin(claim)
    if not found.se:
        return float(not verdict)
    s, weights = chi_nodes(found.df)
    if verdict:
        room = reach / found.se - found._t(1 - 2 * ALPHA) * s
        chance = ndtr(room - off / found.se) - ndtr(-room - off / found.se)
        return float(chance.clip(0) @ weights)
    room = half_digit / found.se + found._t(1 - ALPHA) * s
    chance = 1 - ndtr(room - off / found.se) + ndtr(-room - off / found.se)
    return float(chance @ weights)


def spread_interval(sd: float, df: int, level: float = 1 - ALPHA) -> tuple[float, float]:
    """Chi-square interval of a standard deviation.

    Args:
        sd: as measured (n - 1).
        df: its degrees of freedom.
        level: coverage, in (0, 1).
    """
    from scipy import stats

    low, high = (stats.chi2.ppf(q, df) for q in ((1 - level) / 2, (1 + level) / 2))
    return sd * math.sqrt(df / high), sd * math.sqrt(df / low)


def spread_agrees(claim: Claim, sd: float, df: int) -> bool | None:
    """Whether a standard deviation is the claimed one; None where more seeds are needed.

    Args:
        claim: of a standard deviation.
        sd: as measured, in the claim's unit.
        df: its degrees of freedom.
    """
    low, high = spread_interval(sd, df, 1 - 2 * ALPHA)
    if claim.middle / SPREAD_FACTOR <= low and high <= claim.middle * SPREAD_FACTOR:
        return True
    return None if claim.meets(*spread_interval(sd, df)) else False


def spread_if_false(claim: Claim, df: int, verdict: bool) -> float:
    """Chance that `spread_agrees` answers likewise if the true spread is twice the claimed one.

    Args:
        claim: of a standard deviation.
        df: degrees of freedom.
        verdict: what was answered.
    """
    from scipy import stats

    def below(sd: float) -> float:
        """Chance of a measured SD below this."""
        return float(stats.chi2.cdf(df * (sd / (2 * claim.middle)) ** 2, df))

    level = 1 - 2 * ALPHA if verdict else 1 - ALPHA
    low_factor, high_factor = spread_interval(1.0, df, level)
    if verdict:
        least, most = claim.middle / SPREAD_FACTOR, claim.middle * SPREAD_FACTOR
        return max(below(most / high_factor) - below(least / low_factor), 0.0)
    return 1 - below(claim.high / low_factor) + below(claim.low / high_factor)


def count_if_false(claim: Claim, verdict: bool) -> float:
    """Chance that a count prints as claimed, or does not, if it may be anything within a factor 2.

    Args:
        claim: of a count, or of a ratio of counts.
        verdict: whether it does.
    """
    middle, half = abs(claim.middle), (claim.high - claim.low) / 2
    low, high = max(middle - half, middle / 2), min(middle + half, middle * 2)
    chance = math.log(high / low) / math.log(4)
    return chance if verdict else 1 - chance
