"""When a measured figure counts as the claimed one, and how often it would by chance.

A claim of a mean is reproduced if two one-sided tests at 5 % (TOST) find the mean within a margin
of the printed figure: its 90 % interval lies there whole. It is not reproduced if the 95 % interval
has no point in common with what the printed digits stand for. Else more seeds are needed. A
standard deviation is judged likewise by the chi-square distribution, its margin being a factor, as
is that of a price, so many parameters for a point of error.

What would happen were the claim false is told for a definite falsehood: a mean that is off by twice
the margin (of a range: by the margin beyond its end), a standard deviation or a price of twice the
claimed one, a count anywhere within a factor of two, equally likely in its logarithm.
"""

import math
from dataclasses import dataclass, replace

from scipy import stats
from scipy.special import ndtr

from senet_lib.analysis.dunnett import chi_nodes
from senet_lib.claims.claim import Claim

MARGINS = {
    "error": 0.2, "difference": 0.2, "accuracy": 1.0, "localisation": 0.05,
    "test_accuracy": 1.0, "train_loss": 0.02,
}  # fmt: skip
"""Stated margins, in the claim's unit. 0.2 points are less than half of the 0.47 that the second
source claims for its gates: the plain network's error is never taken for the gated one's."""
FACTOR = 1.5
"""Within which a standard deviation, or a price, counts as the claimed one."""
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A figure in the claim's unit, with the degrees of freedom of its spread, at least 1."""

    number: float
    df: int

    def agrees(self, claim: Claim) -> bool | None:
        """Whether it lies in the room the claim leaves; None where more seeds are needed."""
        low, high = self.interval(1 - 2 * ALPHA)
        least, most = self.room(claim)
        if least <= low and high <= most:
            return True
        return None if claim.meets(*self.interval()) else False


@dataclass(frozen=True, kw_only=True)
class Estimate(_Measured):
    """A mean, or a difference of means, with its standard error, 0 where nothing varies."""

    se: float

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """Student's interval of a coverage in (0, 1)."""
        half = self._t(level) * self.se
        return self.number - half, self.number + half

    def _t(self, level: float) -> float:
        return float(stats.t.ppf((1 + level) / 2, self.df))

    def room(self, claim: Claim) -> tuple[float, float]:
        """Where the mean may lie."""
        return claim.middle - _reach(claim), claim.middle + _reach(claim)

    def if_false(self, claim: Claim, verdict: bool, widened: float = 1.0) -> float:
        """Chance that `agrees` answers likewise if the true mean is off by twice the margin; with
        the 95 % interval so many times as wide."""
        off = claim.middle + _reach(claim) + margin(claim)
        room = self.room(claim) if verdict else (claim.low, claim.high)
        return self.chance(verdict, room, off, widened)

    def chance(
        self, verdict: bool, room: tuple[float, float], mean: float, widened: float = 1.0
    ) -> float:
        """Chance, were this the true mean, that the 90 % interval lies in the room, or for a
        verdict of False, that the 95 % interval, so many times as wide, has no point of it."""
        if not self.se:
            return float(not verdict)
        reach = self._t(1 - 2 * ALPHA) if verdict else -widened * self._t(1 - ALPHA)
        s, weights = chi_nodes(self.df)  # the measured standard error is taken for the true one
        low, high = ((end - mean) / self.se for end in room)
        inside = float((ndtr(high - reach * s) - ndtr(low + reach * s)).clip(0) @ weights)
        return inside if verdict else 1 - inside


@dataclass(frozen=True, kw_only=True)
class Spread(_Measured):
    """A standard deviation (n - 1)."""

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """Chi-square interval of a coverage in (0, 1)."""
        low, high = (stats.chi2.ppf(q, self.df) for q in ((1 - level) / 2, (1 + level) / 2))
        return self.number * math.sqrt(self.df / high), self.number * math.sqrt(self.df / low)

    def room(self, claim: Claim) -> tuple[float, float]:
        """Where the standard deviation may lie."""
        return claim.middle / FACTOR, claim.middle * FACTOR

    def if_false(self, claim: Claim, verdict: bool) -> float:
        """Chance that `agrees` answers likewise if the true spread is twice the claimed one."""

        def below(sd: float) -> float:
            """Chance of a measured SD below this."""
            return float(stats.chi2.cdf(self.df * (sd / (2 * claim.middle)) ** 2, self.df))

        level = 1 - 2 * ALPHA if verdict else 1 - ALPHA
        low_factor, high_factor = replace(self, number=1.0).interval(level)
        if verdict:
            least, most = self.room(claim)
            return max(below(most / high_factor) - below(least / low_factor), 0.0)
        return 1 - below(claim.high / low_factor) + below(claim.low / high_factor)


def margin(claim: Claim) -> float:
    """The stated margin of a claim of a mean."""
    return MARGINS[claim.column or claim.measure]


def _reach(claim: Claim) -> float:
    """How far from the middle a mean may lie; a claimed range is its own margin."""
    return (claim.high - claim.low) / 2 if claim.is_range else margin(claim)


def count_if_false(claim: Claim, verdict: bool) -> float:
    """Chance that a count, or a ratio of counts, prints as claimed, or does not, if it may be
    anything within a factor 2."""
    middle, half = abs(claim.middle), (claim.high - claim.low) / 2
    low, high = max(middle - half, middle / 2), min(middle + half, middle * 2)
    chance = math.log(high / low) / math.log(4)
    return chance if verdict else 1 - chance
