"""The errors of a study's runs, fractions: each network's, and its difference from its control."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from senet_lib.analysis.contrasts import LEVEL, MARGIN, Comparison, compare, decide, pooled_sd
from senet_lib.analysis.dunnett import critical_value
from senet_lib.analysis.families import by_model, family
from senet_lib.errors import unknown
from senet_lib.runs.records import RunRecord
from senet_lib.runs.study import check_one_kind

CONTROLS = {"plain": "", "se": "se_"}  # what its name has before the family's


def leaderboard(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a network, lowest mean error first, of finished runs of one recipe, data and split.

    Returns:
        model, num_params, macs, n, mean_error, sd_error (n - 1; NaN for one seed), low and high
        (95 % interval of the mean by Student's t, from the SD pooled over all networks, cut at 0
        and 1; NaN where no network has two seeds, or none varies), and errors: {seed: error}.
    """
    groups, found = by_model(runs), _errors(runs)
    sd, df = pooled_sd(found)
    half = sd * stats.t.ppf(0.975, df) if sd > 0 else math.nan
    rows = []
    for name, errors in found.items():
        values, run = np.array(list(errors.values())), groups[name][0]
        mean, reach = values.mean(), half / math.sqrt(len(values))
        own = values.std(ddof=1) if len(values) > 1 else math.nan
        ends = np.clip([mean - reach, mean + reach], 0, 1)
        rows.append((name, run.num_params, run.macs, len(values), mean, own, *ends, errors))
    columns = ["model", "num_params", "macs", "n", "mean_error", "sd_error", "low", "high"]
    table = pd.DataFrame(rows, columns=[*columns, "errors"])
    return table.sort_values("mean_error", kind="stable", ignore_index=True)


def _errors(runs: Sequence[RunRecord]) -> dict[str, dict[int, float]]:
    check_one_kind(runs)
    return {name: {run.seed: run.test_error for run in own} for name, own in by_model(runs).items()}


def by_arithmetic(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """What the way of computing (`RunRecord.arithmetic`) does to the error of a study's runs.

    Returns:
        A row a way, the commonest first: runs; networks, how many were trained in this way and in
        the commonest; of these the difference (their error in this way minus that in the commonest,
        the mean over them) and the reach of its 95 % interval, by Student's t with the SD pooled
        over networks and ways. NaN where there is none, as for the commonest itself.
    """
    frame = _ways(runs)
    ways = frame["way"].value_counts()
    cells = frame.groupby(["network", "way"])["error"]
    means, seeds = (cells.agg(how).unstack() for how in ("mean", "count"))
    sd, df = pooled_sd({cell: dict(enumerate(some)) for cell, some in cells})
    sd = sd or math.nan  # where none varies there is no interval
    apart = means.sub(means[ways.index[0]], axis=0).assign(**{ways.index[0]: math.nan})
    share = (1 / seeds).add(1 / seeds[ways.index[0]], axis=0).where(apart.notna())
    networks = apart.notna().sum()
    reach = stats.t.ppf(0.975, df) * sd * np.sqrt(share.sum()) / networks.replace(0, math.nan)
    columns = {"runs": ways, "networks": networks, "difference": apart.mean(), "reach": reach}
    return pd.DataFrame(columns).loc[ways.index]


def _ways(runs: Sequence[RunRecord]) -> pd.DataFrame:
    check_one_kind(runs)
    found = [(run.network, run.arithmetic, run.test_error) for run in runs]
    return pd.DataFrame(found, columns=["network", "way", "error"])


def beside_arithmetic(
    runs: Sequence[RunRecord], comparison: Comparison, margin: float = MARGIN
) -> pd.DataFrame:
    """The differences of a comparison where the way of computing has an effect of its own.

    By least squares, error = network + way; the intervals hold together as in `contrasts.compare`,
    with the standard error of this model and, very nearly right, the critical value of that one.

    Returns:
        difference, low, high and decision by model; NaN, and "undecided", where these runs cannot
        tell networks from ways.
    """
    frame, rows = _ways(runs), comparison.frame
    design = pd.get_dummies(frame[["network", "way"]], prefix="", prefix_sep="", dtype=float)
    x, y = design.to_numpy(), frame["error"].to_numpy()
    inverse, df = np.linalg.pinv(x.T @ x), len(x) - np.linalg.matrix_rank(x)
    each = pd.DataFrame(np.eye(x.shape[1]), design.columns)
    asked = each.loc[rows["model"]].to_numpy() - each.loc[rows["control"]].to_numpy()
    fitted = inverse @ x.T @ y
    known = np.isclose(asked @ inverse @ x.T @ x, asked).all(1) & (df > 0)
    sd = math.sqrt(((y - x @ fitted) ** 2).sum() / df) if df else math.nan
    reach = (sd or math.nan) * np.sqrt(np.einsum("ij,jk,ik->i", asked, inverse, asked))
    reach *= critical_value(comparison.families, df, LEVEL) if known.any() else math.nan
    middle = np.where(known, asked @ fitted, math.nan)
    found = {"difference": middle, "low": middle - reach, "high": middle + reach}
    decision = decide(found["low"], found["high"], margin)
    return pd.DataFrame(found | {"decision": decision}, rows["model"])


def controls(models: Sequence[str], against: str = "plain") -> dict[str, str]:
    """{network: control} of those whose control is there.

    Args:
        models: names, as `by_model` gives them.
        against: "plain", the network of the same family without attention, or "se", the one with SE
            at its usual settings, which the questions about a single setting need. The literal
            block lacks a convolution beside, so that no plain network is its control.
    """
    if against not in CONTROLS:
        raise unknown("control", against, CONTROLS)
    apart = "gate_at=literal" if against == "plain" else None
    whole = [model for model in models if apart not in model.split("+")]
    named = {model: CONTROLS[against] + family(model, models) for model in whole}
    return {m: control for m, control in named.items() if control in models and control != m}


def compare_runs(
    runs: Sequence[RunRecord],
    *,
    rng: np.random.Generator,
    against: str = "plain",
    margin: float = MARGIN,
) -> Comparison:
    """Every network of a study against its control; see `contrasts.compare` and, for `against`,
    `controls`."""
    errors = _errors(runs)
    return compare(errors, controls(list(errors), against), rng=rng, margin=margin)
