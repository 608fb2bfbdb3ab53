"""How sure are the differences of a study? Every network against its control, in one family.

A handful of seeds says little about one network's spread, and much about that of twenty networks
together. So the standard deviation over seeds is pooled over all networks of a study, its
homogeneity is tested, and all differences are judged together by Dunnett's test: where no network
differs, at most one study in twenty names any. Pairing by seed is left out, for the errors of two
networks on one seed do not correlate. Seeds are taken as normal and independent.

An error is a fraction, and a difference is the network's error minus its control's: below zero, the
network is better. What cannot be had from too few seeds is not a number.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.dunnett import (
    Families,
    critical_value,
    effect_for,
    found_with,
    within,
)
from senet_lib.analysis.statistics import check_share, checked, sign_flip, standard_deviation
from senet_lib.errors import SenetError

if TYPE_CHECKING:
    import pandas as pd

Errors = Mapping[str, Mapping[int, float]]
POWER = 0.8
MARGIN = 0.005
SIMULATED = 4_999
MOST_SEEDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The standard deviation over seeds, pooled over networks."""

    sd: float
    """Pooled estimate, in the unit of the values; NaN without a network of two seeds."""
    df: int
    """Its degrees of freedom: seeds minus networks, of those with two seeds."""
    low: float
    """Lower end of its 95 % interval, by the chi-square distribution."""
    high: float
    """Upper end."""
    num_networks: int
    """Networks it is pooled over."""
    bartlett: float
    """Bartlett's statistic; a network whose seeds all agree counts with the least spread seen."""
    p_homogeneous: float
    """Chance of a statistic as large if all networks had one spread; NaN below two networks."""
    ratio: float
    """Largest SD of a network over the smallest; infinite where a network's seeds all agree."""

    @property
    def homogeneous(self) -> bool:
        """Whether one spread for all is not refuted at 5 %; False where it cannot be tested."""
        return self.p_homogeneous >= 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Every network of a study against its control; see `compare`."""

    frame: "pd.DataFrame"
    """One row a network that has a control; columns in `compare`."""
    spread: Spread
    """Of all networks, with or without a control."""
    margin: float
    """A difference below it does not matter; a fraction."""
    level: float
    """Simultaneous coverage of the intervals."""
    critical: float
    """Half an interval's length over the standard error; NaN without degrees of freedom."""
    families: Families
    """The design."""

    def of(self, models: Sequence[str]) -> "pd.DataFrame":
        """The rows of some networks, in the order given.

        Raises:
            SenetError: one of them has no row.
        """
        rows = self.frame.set_index("model", drop=False)
        if absent := [model for model in models if model not in rows.index]:
            raise SenetError(f"{', '.join(absent)}: not compared with a control in this study")
        return rows.loc[list(models)].reset_index(drop=True)

    def planning(
        self, differences: Sequence[float] = (0.0025, 0.005, 0.01), power: float = POWER
    ) -> "pd.DataFrame":
        """How many seeds it takes, every network having as many and as many being compared.

        Args:
            differences: true differences to be found, fractions above 0.
            power: chance of finding each, in (0, 1).
        Returns:
            A row a difference: difference, seeds (of each network, in all) and more (beyond the
            fewest that a compared network or a control has); NA where the spread is unknown.
        Raises:
            SenetError: an argument is out of range.
        """
        import pandas as pd

        check_share("power", power)
        fewest = min((min(n, *(m for m, _ in rest)) for n, rest in self.families), default=0)
        rows = []
        for difference in differences:
            seeds = self._seeds_for(difference, power)
            more = None if seeds is None else max(seeds - fewest, 0)
            rows.append({"difference": difference, "seeds": seeds, "more": more})
        frame = pd.DataFrame(rows, columns=["difference", "seeds", "more"])
        return frame.astype({"seeds": "Int64", "more": "Int64"})

    def _seeds_for(self, difference: float, power: float) -> int | None:
        """Fewest seeds, at least 2, with which a difference is found with the power asked for."""
        if not 0 < difference < math.inf:
            raise SenetError(f"a difference of {difference} cannot be planned for; it must be > 0")
        if not self.families or math.isnan(self.spread.sd):
            return None

        def enough(n: int) -> bool:
            design = tuple(
                (n, ((n, sum(count for _, count in rest)),)) for _, rest in self.families
            )
            df = (n - 1) * self.spread.num_networks
            effect = difference / (self.spread.sd * math.sqrt(2 / n)) if self.spread.sd else 1e9
            return found_with(effect, critical_value(design, df, self.level), df) >= power

        high = 2
        while not enough(high):
            high *= 2
            if high > MOST_SEEDS:
                return None
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def pooled_sd(errors: Errors) -> tuple[float, int]:
    """The standard deviation over seeds, pooled over networks, and its degrees of freedom.

    Args:
        errors: error of each seed, by network.
    Returns:
        NaN and 0 where no network has two seeds.
    Raises:
        SenetError: an error is not a finite number.
    """
    sds, dfs = _sds(errors)
    df = int(dfs.sum())
    return (math.sqrt(dfs @ sds**2 / df) if df else math.nan), df


def _sds(errors: Errors) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation and degrees of freedom of each network that has two seeds."""
    known = [checked(values, f"{name}, seed").values() for name, values in errors.items()]
    groups = [np.array(list(values)) for values in known if len(values) > 1]
    sds = np.array([standard_deviation(group) for group in groups])
    return sds, np.array([len(group) - 1 for group in groups], int)


def pooled_spread(errors: Errors, *, rng: np.random.Generator) -> Spread:
    """The standard deviation over seeds, and whether one value does for all networks.

    Bartlett's statistic is compared with its distribution for normal seeds of one spread, drawn
    4,999 times, because the usual chi-square is far off for two seeds a network. The tests of
    Levene and of Brown and Forsythe do not exist for two seeds.

    Args:
        errors: error of each seed, by network.
        rng: draws the distribution.
    Raises:
        SenetError: an error is not a finite number.
    Source: Bartlett 1937, Proc. R. Soc. A 160:268.
    """
    from scipy import stats

    (sd, df), (sds, dfs) = pooled_sd(errors), _sds(errors)
    unknown = {"low": math.nan, "high": math.nan, "bartlett": math.nan, "p_homogeneous": math.nan}
    if not df:
        return Spread(sd=sd, df=df, num_networks=0, ratio=math.nan, **unknown)
    found = unknown | {
        "low": sd * math.sqrt(df / stats.chi2.ppf(0.975, df)),
        "high": sd * math.sqrt(df / stats.chi2.ppf(0.025, df)),
    }
    if sd and len(sds) > 1:
        variances = sds**2
        least = variances[variances > 0].min()
        found["bartlett"] = float(_bartlett(np.maximum(variances, least), dfs))
        drawn = _bartlett(rng.chisquare(dfs, (SIMULATED, len(dfs))) / dfs, dfs)
        beyond = int((drawn >= found["bartlett"]).sum())
        found["p_homogeneous"] = (1 + beyond) / (1 + SIMULATED)
    ratio = math.nan if not sd else float(sds.max() / sds.min()) if sds.min() else math.inf
    return Spread(sd=sd, df=df, num_networks=len(sds), ratio=ratio, **found)


def _bartlett(variances: np.ndarray, dfs: np.ndarray) -> np.ndarray:
    """Bartlett's statistic of (..., networks) variances."""
    df = dfs.sum()
    correction = 1 + ((1 / dfs).sum() - 1 / df) / (3 * (len(dfs) - 1))
    return (df * np.log(variances @ dfs / df) - np.log(variances) @ dfs) / correction


def compare(
    errors: Errors,
    controls: Mapping[str, str],
    *,
    rng: np.random.Generator,
    margin: float = MARGIN,
    level: float = 0.95,
) -> Comparison:
    """Compare networks with their controls, all at once.

    The frame has a row a network with a control, in the order of `controls`:

    - model, control, n, n_control, mean, mean_control: means over all seeds of each;
    - difference: mean minus mean_control; low and high: its simultaneous interval by Dunnett's
      method, with the SD and the degrees of freedom of the whole study, cut at -1 and 1, which
      loses no coverage;
    - p: adjusted for all rows; below 1 - level where the interval leaves out zero;
    - p_equal: of two one-sided tests that the difference is within the margin, adjusted likewise;
      below 1 - level where the whole interval is, so that each side is tested at half of that;
    - decision: "better" or "worse" where the interval leaves out zero, else "equal" where it lies
      within the margin, else "undecided";
    - at_least: what a decided difference is at least, without sign, else 0;
    - more_seeds: where undecided, how many more each network needs to find a difference of the
      margin with 80 % power, 1 at least;
    - detectable: the difference that the row's seeds find with 80 % power;
    - cohens_d: difference over the pooled SD;
    - differences: {seed: network minus control} on the seeds both have; p_paired: paired t test on
      them; p_sign: the exact sign-flip test, and p_sign_floor, 2 / 2^n, which it cannot fall below.
      These three are adjusted for nothing.

    Args:
        errors: error of each seed by network, fractions; all networks of the study.
        controls: name of its control by network; both must be in `errors`.
        rng: for the homogeneity of the spread.
        margin: what a difference must exceed to matter, a fraction above 0.
        level: simultaneous coverage, in (0, 1).
    Raises:
        SenetError: a number is not finite, an argument is out of range, a network has no seed, or
            a control is compared with another one.
    Source: Dunnett 1955, JASA 50:1096; Schuirmann 1987, J. Pharmacokin. Biopharm. 15:657 (TOST).
    """
    import pandas as pd

    check_share("level", level)
    if not 0 < margin < math.inf:
        raise SenetError(f"margin is {margin}; a difference that matters is above 0")
    for name in {*controls, *controls.values()}:
        if not errors.get(name):
            raise SenetError(f"{name} has no seed, so it cannot be compared")
    if chained := sorted(set(controls) & set(controls.values())):
        raise SenetError(f"{', '.join(chained)}: a control cannot have a control itself")
    spread = pooled_spread(errors, rng=rng)
    families = _design(errors, controls)
    known = spread.df > 0 and spread.sd > 0 and bool(families)
    critical = critical_value(families, spread.df, level) if known else math.nan
    rows = [
        _row(name, errors[name], control, errors[control]) for name, control in controls.items()
    ]
    frame = pd.DataFrame(rows, columns=[*ROW])
    scale = spread.sd if known else math.nan
    se = scale * np.sqrt(1 / frame["n"].to_numpy(float) + 1 / frame["n_control"].to_numpy(float))
    size = frame["difference"].abs()
    frame["low"] = (frame["difference"] - critical * se).clip(-1, 1)
    frame["high"] = (frame["difference"] + critical * se).clip(-1, 1)
    frame["p"] = _beyond(size / se, families, spread.df)
    frame["p_equal"] = _beyond(((margin - size) / se).clip(lower=0), families, spread.df)
    frame["decision"] = np.select(
        [frame["high"] < 0, frame["low"] > 0, (frame["low"] > -margin) & (frame["high"] < margin)],
        ["better", "worse", "equal"],
        "undecided",
    )
    frame["at_least"] = np.maximum(frame["low"], -frame["high"]).clip(lower=0).fillna(0)
    frame["detectable"] = se * effect_for(POWER, critical, spread.df) if known else math.nan
    frame["cohens_d"] = frame["difference"] / scale
    comparison = Comparison(
        frame=frame,
        spread=spread,
        margin=margin,
        level=level,
        critical=critical,
        families=families,
    )
    seeds = comparison._seeds_for(margin, POWER)
    fewest = frame[["n", "n_control"]].min(axis=1)
    more = pd.Series(pd.NA if seeds is None else seeds, frame.index, "Int64") - fewest
    frame["more_seeds"] = more.clip(lower=1).where(frame["decision"] == "undecided")
    return comparison


ROW = (
    "model", "control", "n", "n_control", "mean", "mean_control", "difference",
    "differences", "p_paired", "p_sign", "p_sign_floor",
)  # fmt: skip


def _row(
    model: str, errors: Mapping[int, float], control: str, control_errors: Mapping[int, float]
) -> dict[str, object]:
    """What a contrast has without the rest of the study."""
    from scipy import stats

    shared = sorted(errors.keys() & control_errors.keys())
    differences = {seed: errors[seed] - control_errors[seed] for seed in shared}
    mean, mean_control = (float(np.mean(list(e.values()))) for e in (errors, control_errors))
    values = np.array(list(differences.values()))
    varies = len(values) > 1 and standard_deviation(values) > 0
    return {
        "model": model,
        "control": control,
        "n": len(errors),
        "n_control": len(control_errors),
        "mean": mean,
        "mean_control": mean_control,
        "difference": mean - mean_control,
        "differences": differences,
        "p_paired": float(stats.ttest_1samp(values, 0).pvalue) if varies else math.nan,
        "p_sign": sign_flip(values) if len(values) else math.nan,
        "p_sign_floor": 2 / 2 ** len(values) if len(values) else math.nan,
    }


def _design(errors: Errors, controls: Mapping[str, str]) -> Families:
    counts: dict[str, Counter[int]] = {}
    for name, control in controls.items():
        counts.setdefault(control, Counter())[len(errors[name])] += 1
    return tuple((len(errors[c]), tuple(sorted(found.items()))) for c, found in counts.items())


def _beyond(bounds: "pd.Series", families: Families, df: int) -> np.ndarray:
    """1 - `within`; NaN stays."""
    values = np.asarray(bounds, float)
    found, known = np.full(len(values), math.nan), np.isfinite(values)
    if known.any():
        found[known] = 1 - within(values[known], families, df)
    return found
