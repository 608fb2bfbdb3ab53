"""How sure is a difference? Each variant against its plain network, with every usual statistic.

The unit is the seed. McNemar's test alone looks at single images, of one pair of runs at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.families import by_model, family, variant
from senet_lib.report.table import Table
from senet_lib.runs.records import RunRecord
from senet_lib.runs.study import StudyRuns
from senet_lib.wording import p_value, percent, points, span

if TYPE_CHECKING:
    from senet_lib.analysis.statistics import Comparison, McNemar


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One variant against its plain network."""

    plain: str
    """Name of the network without attention."""
    model: str
    """Name of the variant."""
    result: "Comparison"
    """Error of the variant minus that of the plain network, over the shared seeds."""
    adjusted_p: float | None
    """p of the paired t test, adjusted by Holm's method over all pairs of the study."""
    images: dict[int, "McNemar"]
    """McNemar's test on the evaluated images, by seed."""


def compare_pairs(runs: Sequence[RunRecord], *, rng: np.random.Generator) -> list[Pair]:
    """Every variant of a study against its plain network.

    Args:
        runs: finished runs of one recipe, data and split.
        rng: for the bootstrap intervals.
    Returns:
        The pairs that share a seed, in the order of `families.by_model`.
    """
    from senet_lib.analysis import statistics as stats

    groups = by_model(runs)
    names = list(groups)
    compared, images = {}, {}
    for name in names:
        plain = family(name, names)
        if variant(name, names) == "plain" or plain not in groups:
            continue
        here, there = ({run.seed: run for run in groups[m]} for m in (name, plain))
        result = stats.compare(
            {seed: run.test_error for seed, run in there.items()},
            {seed: run.test_error for seed, run in here.items()},
            rng=rng,
        )
        if result.n == 0:
            continue
        compared[name] = (plain, result)
        images[name] = {
            seed: stats.mcnemar(_correct(there[seed]), _correct(here[seed]))
            for seed in result.seeds
        }
    adjusted = stats.holm({name: result.p_paired for name, (_, result) in compared.items()})
    return [
        Pair(
            plain=plain,
            model=name,
            result=result,
            adjusted_p=adjusted[name],
            images=images[name],
        )
        for name, (plain, result) in compared.items()
    ]


def _correct(run: RunRecord) -> np.ndarray:
    logits, labels = run.test_logits()
    return logits.argmax(1) == labels


def statistics_table(study: StudyRuns) -> Table:
    """Interval, tests, effect size and power of each pair; what n seeds cannot give is empty."""
    import pandas as pd

    rows = [
        {
            "network": pair.model,
            "against": pair.plain,
            "n": pair.result.n,
            "difference": points(pair.result.mean),
            "t interval": span(pair.result.t_interval, points),
            "bootstrap": span(pair.result.bootstrap_interval, points),
            "paired t": p_value(pair.result.p_paired),
            "Holm": p_value(pair.adjusted_p),
            "Welch": p_value(pair.result.p_welch),
            "McNemar": _range([test.p for test in pair.images.values()]),
            "Cohen's d": _ratio(pair.result.cohens_d),
            "Hedges' g": _ratio(pair.result.hedges_g),
            "detectable": "" if not pair.result.detectable else percent(pair.result.detectable),
        }
        for pair in compare_pairs(study.runs, rng=np.random.default_rng(0))
    ]
    return Table(
        pd.DataFrame(rows),
        "Difference in percentage points with its 95 % intervals over seeds (Student's t; "
        "percentile bootstrap, too narrow for few seeds); p of the paired t test, the same "
        "adjusted by Holm's method over all rows, Welch's t test, and McNemar's test on the images "
        "(smallest to largest over the seeds); Cohen's d is the difference over the pooled "
        "standard deviation of the two networks, Hedges' g the same with its small-sample "
        "correction; detectable: the smallest difference that n seeds with this spread show with "
        "80 % power",
        text_columns=("network", "against"),
        empty="No network shares a seed with its plain form, so there is nothing to test.",
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}".replace("-", "−")


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = p_value(min(values)), p_value(max(values))
    return low if low == high else f"{low} to {high}"
