"""The errors of a study's runs: each network's, and what it differs by from its control.

Errors and differences are fractions. A difference is the network's error minus its control's: below
zero, the network is better.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.contrasts import MARGIN, Comparison, compare, pooled_sd
from senet_lib.analysis.families import by_model, family
from senet_lib.analysis.predictions import correct_matrix
from senet_lib.analysis.statistics import mcnemar
from senet_lib.errors import unknown
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = {"plain": "", "se": "se_"}
"""What networks are compared with, and what its name has before the family's."""


def leaderboard(runs: Sequence[RunRecord]) -> "pd.DataFrame":
    """One row a network, lowest mean error first.

    Args:
        runs: finished runs of one recipe, data and split.
    Returns:
        model, num_params, macs, n, mean_error, sd_error (n - 1; not a number for one seed), low and
        high (95 % interval of the mean by Student's t, from the SD pooled over all networks, cut at
        0 and 1, which loses no coverage; not numbers where no network has two seeds), and errors:
        {seed: error}.
    """
    import pandas as pd
    from scipy import stats

    groups = by_model(runs)
    sd, df = pooled_sd({m: {r.seed: r.test_error for r in group} for m, group in groups.items()})
    half = sd * stats.t.ppf(0.975, df) if df else math.nan
    rows = []
    for name, group in groups.items():
        errors = {run.seed: run.test_error for run in group}
        values = np.array(list(errors.values()))
        mean, reach = values.mean(), half / math.sqrt(len(values))
        rows.append({
            "model": name,
            "num_params": group[0].num_params,
            "macs": group[0].macs,
            "n": len(values),
            "mean_error": mean,
            "sd_error": values.std(ddof=1) if len(values) > 1 else math.nan,
            "low": np.clip(mean - reach, 0, 1),
            "high": np.clip(mean + reach, 0, 1),
            "errors": errors,
        })  # fmt: skip
    columns = [
        "model", "num_params", "macs", "n", "mean_error", "sd_error", "low", "high", "errors",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("mean_error", kind="stable", ignore_index=True)


def controls(models: Sequence[str], against: str = "plain") -> dict[str, str]:
    """What each network of a study is compared with.

    Args:
        models: names, as `by_model` gives them.
        against: "plain", the network of the same family without attention, or "se", the one with SE
            at its usual settings, which the questions about a single setting need.
    Returns:
        {network: control} of those whose control is there, in the order of `models`.
    Raises:
        UnknownNameError: there is no such control.
    """
    if against not in CONTROLS:
        raise unknown("control", against, CONTROLS)
    named = {model: CONTROLS[against] + family(model, models) for model in models}
    return {m: control for m, control in named.items() if control in models and control != m}


def compare_runs(
    runs: Sequence[RunRecord],
    *,
    rng: np.random.Generator,
    against: str = "plain",
    margin: float = MARGIN,
    level: float = 0.95,
) -> Comparison:
    """Every network of a study against its control, in one family of tests.

    Args:
        runs: all finished runs of the study, of one recipe, data and split; networks without a
            control add to what is known of the spread.
        rng: see `contrasts.compare`, whose frame the result has.
        against: see `controls`.
        margin: what a difference must exceed to matter, a fraction.
        level: simultaneous coverage of the intervals.
    Raises:
        UnknownNameError: there is no such control.
        SenetError: margin or level is out of range.
    """
    groups = by_model(runs)
    errors = {m: {run.seed: run.test_error for run in group} for m, group in groups.items()}
    return compare(errors, controls(list(groups), against), rng=rng, margin=margin, level=level)


def mcnemar_frame(runs: Sequence[RunRecord], against: str = "plain") -> "pd.DataFrame":
    """McNemar's test of each network against its control on the evaluated images, seed by seed.

    Args:
        runs: finished runs of one recipe, data and split.
        against: see `controls`.
    Returns:
        model, control, seed, only_control_right, only_variant_right (images), difference and p.
    Raises:
        UnknownNameError: there is no such control.
    """
    import pandas as pd

    groups = {m: {run.seed: run for run in group} for m, group in by_model(runs).items()}
    rows = []
    for model, control in controls(list(groups), against).items():
        for seed in sorted(groups[model].keys() & groups[control].keys()):
            found = mcnemar(*correct_matrix([groups[control][seed], groups[model][seed]]))
            rows.append({
                "model": model,
                "control": control,
                "seed": seed,
                "only_control_right": found.only_control_right,
                "only_variant_right": found.only_variant_right,
                "difference": found.difference,
                "p": found.p,
            })  # fmt: skip
    columns = [
        "model", "control", "seed", "only_control_right", "only_variant_right", "difference", "p",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
