"""How sure are the differences of a study? Every network against its control, in one family.

The standard deviation over seeds is pooled over all networks, its homogeneity is tested, and all
differences are judged together by Dunnett's test: where no network differs, at most one study in
twenty names any. Seeds are taken as normal and independent, and not in pairs: where a seed moves
all networks alike, the intervals of networks with the same seeds are a little too wide.

An error is a fraction, and a difference is the network's error minus its control's: below zero, the
network is better. What cannot be had from too few seeds is not a number.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from senet_lib.analysis.dunnett import Families, critical_value, within
from senet_lib.analysis.statistics import (
    MOST_FLIPPED,
    check_rng,
    checked,
    sign_flip,
    standard_deviation,
)
from senet_lib.errors import SenetError

Errors = Mapping[str, Mapping[int, float]]
LEVEL = 0.95  # simultaneous coverage
POWER = 0.8
MARGIN = 0.005
SIMULATED = 4_999
MOST_SEEDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The standard deviation over seeds, pooled over networks; NaN is what cannot be had."""

    sd: float = math.nan  # in the unit of the values
    df: int = 0  # seeds minus networks, of those with two seeds
    num_networks: int = 0  # of the study, those with one seed too
    # Of Bartlett's test that all have one spread; where seeds all agree, the least spread seen.
    p_homogeneous: float = math.nan
    widest: str = ""  # the network that makes the largest part of the pooled variance
    share: float = math.nan  # that part, a fraction
    sd_without: float = math.nan  # the pooled SD of the others


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Every network of a study against its control, see `compare`."""

    frame: pd.DataFrame  # a row a network that has a control
    spread: Spread  # of all networks
    families: Families  # the design

    def seeds_for(self, difference: float) -> int | None:
        """Fewest seeds of each network, at least 2, that find a difference with 80 % power; None
        where the spread is not known, or zero."""
        if not 0 < difference < math.inf:
            raise SenetError(f"a difference of {difference} cannot be planned for; it must be > 0")
        if not self.families or not self.spread.sd > 0:
            return None

        def enough(n: int) -> bool:
            design = tuple((n, ((n, sum(k for _, k in rest)),)) for _, rest in self.families)
            df = (n - 1) * self.spread.num_networks
            effect = difference / (self.spread.sd * math.sqrt(2 / n))
            return stats.nct.sf(critical_value(design, df, LEVEL), df, effect) >= POWER

        fewest = 2 + bisect_left(range(2, MOST_SEEDS), True, key=enough)
        return fewest if fewest < MOST_SEEDS else None


def pooled_sd(errors: Errors) -> tuple[float, int]:
    """The standard deviation over seeds, pooled over networks, and its degrees of freedom; NaN and
    0 where no network has two seeds."""
    sds, dfs, _ = _sds(errors)
    df = int(dfs.sum())
    return (math.sqrt(dfs @ sds**2 / df) if df else math.nan), df


def _sds(errors: Errors) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Standard deviation, degrees of freedom and name of each network that has two seeds."""
    known = {name: checked(values, f"{name}, seed") for name, values in errors.items()}
    groups = {name: values for name, values in known.items() if len(values) > 1}
    sds = np.array([standard_deviation(group) for group in groups.values()])
    return sds, np.array([len(group) - 1 for group in groups.values()], int), list(groups)


def pooled_spread(errors: Errors, *, rng: np.random.Generator) -> Spread:
    """The standard deviation over seeds, whether one value does for all networks, and how much of
    it a single one makes.

    Bartlett's statistic is compared with its distribution for normal seeds of one spread, drawn
    4,999 times, because the usual chi-square is far off for two seeds a network.

    Source: Bartlett 1937, Proc. R. Soc. A 160:268.
    """
    check_rng(rng)
    (sd, df), (sds, dfs, names) = pooled_sd(errors), _sds(errors)
    if not df:
        return Spread()
    p, about = math.nan, {}
    if sd and len(sds) > 1:
        variances = sds**2
        parts = dfs * variances
        i = int(parts.argmax())
        rest = parts.sum() - parts[i]
        about = {"widest": names[i], "share": float(parts[i] / parts.sum()),
                 "sd_without": math.sqrt(rest / (df - dfs[i]))}  # fmt: skip
        found = bartlett(np.maximum(variances, variances[variances > 0].min()), dfs)
        drawn = bartlett(rng.chisquare(dfs, (SIMULATED, len(dfs))) / dfs, dfs)
        p = (1 + int((drawn >= found).sum())) / (1 + SIMULATED)
    return Spread(sd=sd, df=df, num_networks=len(errors), p_homogeneous=p, **about)


def bartlett(variances: np.ndarray, dfs: np.ndarray) -> np.ndarray:
    """Bartlett's statistic of (..., networks) variances with such degrees of freedom."""
    df = dfs.sum()
    correction = 1 + ((1 / dfs).sum() - 1 / df) / (3 * (len(dfs) - 1))
    return (df * np.log(variances @ dfs / df) - np.log(variances) @ dfs) / correction


def compare(
    errors: Errors, controls: Mapping[str, str], *, rng: np.random.Generator, margin: float = MARGIN
) -> Comparison:
    """Compare networks with their controls, all at once.

    The frame has a row a network with a control, in the order of `controls`:

    - model, control, n, n_control, mean, mean_control: means over all seeds of each;
    - difference: mean minus mean_control; low and high: its simultaneous interval by Dunnett's
      method, with the SD and the degrees of freedom of the whole study, cut at -1 and 1;
    - p: adjusted for all rows; below 5 % where the interval leaves out zero;
    - p_equal: of two one-sided tests that the difference is within the margin, adjusted likewise;
      below 5 % where the whole interval is, so that each side is tested at half of that;
    - decision: "better" or "worse" where the interval leaves out zero, else "equal" where it lies
      within the margin, else "undecided";
    - at_least: what a decided difference is at least, without sign, else 0;
    - more_seeds: where undecided, how many more each network needs to find a difference of the
      margin with 80 % power, 1 at least;
    - detectable: the difference that the row's seeds find with 80 % power;
    - differences: {seed: network minus control} on the seeds both have; p_sign: the exact sign-flip
      test on them, adjusted for nothing, NaN for more than 20, and p_sign_floor, 2 / 2^n, which
      it cannot fall below.

    Args:
        errors: error of each seed by network, fractions; all networks of the study.
        controls: name of its control by network; both must be in `errors`.
        rng: for the homogeneity of the spread.
        margin: what a difference must exceed to matter, a fraction above 0.
    Raises:
        SenetError: a number is not finite, the margin is not above 0, a network has no seed, or a
            control is compared with another one.
    Source: Dunnett 1955, JASA 50:1096; Schuirmann 1987, J. Pharmacokin. Biopharm. 15:657 (TOST).
    """
    if not 0 < margin < math.inf:
        raise SenetError(f"margin is {margin}; a difference that matters is above 0")
    for name in {*controls, *controls.values()}:
        if not errors.get(name):
            raise SenetError(f"{name} has no seed, so it cannot be compared")
    if chained := sorted(set(controls) & set(controls.values())):
        raise SenetError(f"{', '.join(chained)}: a control cannot have a control itself")
    spread = pooled_spread(errors, rng=rng)
    counts: dict[str, Counter[int]] = {}
    for name, control in controls.items():
        counts.setdefault(control, Counter())[len(errors[name])] += 1
    families = tuple(
        (len(errors[control]), tuple(sorted(found.items()))) for control, found in counts.items()
    )
    known = spread.sd > 0 and bool(families)
    critical = critical_value(families, spread.df, LEVEL) if known else math.nan
    rows = [_row(name, control, errors) for name, control in controls.items()]
    frame = pd.DataFrame(rows, columns=[*ROW])
    each = 1 / frame[["n", "n_control"]].to_numpy(float)
    se = (spread.sd if known else math.nan) * np.sqrt(each[:, 0] + each[:, 1])
    size = frame["difference"].abs()
    frame["low"] = (frame["difference"] - critical * se).clip(-1, 1)
    frame["high"] = (frame["difference"] + critical * se).clip(-1, 1)
    frame["p"] = _beyond(size / se, families, spread.df)
    frame["p_equal"] = _beyond(((margin - size) / se).clip(lower=0), families, spread.df)
    frame["decision"] = decide(frame["low"], frame["high"], margin)
    frame["at_least"] = np.maximum(frame["low"], -frame["high"]).clip(lower=0).fillna(0)
    # The difference over its standard error follows the noncentral t distribution.
    frame["detectable"] = se * special.nctdtrinc(spread.df, 1 - POWER, critical)
    comparison = Comparison(frame=frame, spread=spread, families=families)
    fewest = frame[["n", "n_control"]].min(axis=1)
    seeds = comparison.seeds_for(margin)
    more = pd.Series(pd.NA if seeds is None else seeds, frame.index, "Int64") - fewest
    frame["more_seeds"] = more.clip(lower=1).where(frame["decision"] == "undecided")
    return comparison


def decide(low: np.ndarray, high: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """What intervals of differences decide, see `compare`; NaN decides nothing."""
    equal = (low > -margin) & (high < margin)
    return np.select([high < 0, low > 0, equal], ["better", "worse", "equal"], "undecided")


ROW = (
    *("model", "control", "n", "n_control", "mean", "mean_control", "difference"),
    *("differences", "p_sign", "p_sign_floor"),
)


def _row(model: str, control: str, errors: Errors) -> tuple[object, ...]:
    """What a contrast has without the rest of the study, the columns of `ROW`."""
    ours, theirs = errors[model], errors[control]
    differences = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
    mean, mean_control = (float(np.mean(list(e.values()))) for e in (ours, theirs))
    known = (model, control, len(ours), len(theirs), mean, mean_control, mean - mean_control)
    if not differences:
        return (*known, differences, math.nan, math.nan)
    few = len(differences) <= MOST_FLIPPED  # of more the exact test would take for ever
    p_sign = sign_flip(differences.values()) if few else math.nan
    return (*known, differences, p_sign, 2 / 2 ** len(differences))


def _beyond(bounds: pd.Series, families: Families, df: int) -> np.ndarray:
    """1 - `within`; NaN stays."""
    values = bounds.to_numpy(float, copy=True)
    known = np.isfinite(values)
    values[known] = 1 - within(values[known], families, df) if known.any() else math.nan
    return values
