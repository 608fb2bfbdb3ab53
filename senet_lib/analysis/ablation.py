"""What a part of the attention is worth: one setting changed at a time, each with its cost.

An axis is a setting. Its networks are those of a study that equal the reference, SE with its usual
settings, in everything else; each is compared with the network that has no attention at all, and
with the reference. Nothing is listed by hand, so a study with more values gives a longer table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.axes import AXES, Axis
from senet_lib.analysis.contrasts import MARGIN, Comparison
from senet_lib.analysis.errors import compare_runs
from senet_lib.errors import SenetError, unknown
from senet_lib.models import all_settings
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

COMPARED = (
    *("difference", "low", "high", "p", "decision", "at_least", "more_seeds", "detectable"),
    "differences",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ablation:
    """One axis, as far as the runs go."""

    key: str
    """The setting that changes."""
    axis: Axis
    """What is known of it."""
    plain: str
    """Registry name of the network without attention."""
    reference: str
    """Registry name of SE with its usual settings; empty where it was not trained."""
    frame: "pd.DataFrame"
    """A row a value in the axis's order, the plain network first. Columns: value (None for it),
    label (the value in words), model, n, mean_error, sd_error, errors ({seed: error}), num_params,
    added_params (over the plain network's, a fraction), macs, published (ImageNet error), those of
    COMPARED from `errors.compare_runs` over the whole study, against the plain network, and again
    as se_difference and so on against the reference; params_a_point, the parameters added for each
    percentage point of error less, where the decision is "better". Missing values are NaN, and
    decisions "". Errors and differences are fractions."""
    comparison: Comparison
    """Of the study against its plain networks, with its spread and margin."""
    run: RunRecord
    """One of the runs, for what all of them share."""


def find_axes(runs: Sequence[RunRecord]) -> list[str]:
    """Keys of the axes that the runs have at least two values of, in the order of `AXES`."""
    return [key for key in AXES if _find_members(runs, key)[1]]


def ablate(
    runs: Sequence[RunRecord], key: str, *, rng: np.random.Generator, margin: float = MARGIN
) -> Ablation | None:
    """One axis of a study.

    Args:
        runs: all finished runs of the study, of one recipe, data and split, as `runs.study.collect`
            gives them; networks of other axes add to what is known of the spread, and to the
            family of tests.
        key: a key of `AXES`.
        rng: see `errors.compare_runs`.
        margin: what a difference must exceed to matter, a fraction.
    Returns:
        The axis; None where the runs have not two of its values, or not the plain network.
    Raises:
        UnknownNameError: there is no such axis.
    """
    import pandas as pd

    if key not in AXES:
        raise unknown("axis", key, AXES)
    axis = AXES[key]
    plain, found = _find_members(runs, key)
    if not found:
        return None
    groups = _group(runs)
    named = [(None, "no attention", plain)]
    named += [(value, axis.values.get(value, str(value)), m) for value, m in found.items()]
    rows = []
    for value, text, model in named:
        errors = {run.seed: run.test_error for run in groups[model]}
        rows.append({
            "value": value,
            "label": text,
            "model": model,
            "n": len(errors),
            "mean_error": np.mean(list(errors.values())),
            "sd_error": np.std(list(errors.values()), ddof=1) if len(errors) > 1 else np.nan,
            "errors": errors,
            "num_params": groups[model][0].num_params,
            "macs": groups[model][0].macs,
            "published": axis.published.get(value, np.nan) if model != plain else np.nan,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["value"] = pd.Series([value for value, _, _ in named], dtype=object)  # None stays
    comparison = compare_runs(runs, rng=rng, margin=margin)
    with_se = compare_runs(runs, rng=rng, against="se", margin=margin)
    for prefix, compared in (("", comparison), ("se_", with_se)):
        numbers = compared.frame.set_index("model")[list(COMPARED)].add_prefix(prefix)
        frame = frame.join(numbers, on="model")
        frame[f"{prefix}decision"] = frame[f"{prefix}decision"].fillna("")
    added = frame["num_params"] - frame["num_params"].iloc[0]
    frame["added_params"] = added / frame["num_params"].iloc[0]
    price = added / (-100 * frame["difference"])
    frame["params_a_point"] = price.where(frame["decision"] == "better")
    return Ablation(
        key=key,
        axis=axis,
        plain=plain,
        reference=found.get(axis.reference, ""),
        frame=frame,
        comparison=comparison,
        run=groups[plain][0],
    )


def rank_agreement(found: Ablation) -> tuple[float, float, int] | None:
    """Kendall's tau of the mean errors with the published ones, its p and how many values it is of.

    Args:
        found: an axis.
    Returns:
        None below three published values, which have no order to speak of.
    """
    from scipy.stats import kendalltau

    known = found.frame.dropna(subset="published")
    if len(known) < 3:
        return None
    tau = kendalltau(known["published"], known["mean_error"])
    return float(tau.statistic), float(tau.pvalue), len(known)


def _group(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        if not run.overrides:
            groups.setdefault(run.model, []).append(run)
    return groups


def _find_members(runs: Sequence[RunRecord], key: str) -> tuple[str, dict[object, str]]:
    """The plain network and {value: model} of one axis; the larger family if there are two."""
    axis, settings = AXES[key], {}
    for model in _group(runs):
        try:
            settings[model] = all_settings(model)
        except SenetError:  # a network registered elsewhere
            continue
    best: tuple[str, dict[object, str]] = ("", {})
    for base in settings.values():
        if base.get("attention") != "se" or base.get(key, "") != axis.reference:
            continue
        rest = {k: v for k, v in base.items() if k != key}
        found = {
            s[key]: model
            for model, s in settings.items()
            if key in s and {k: v for k, v in s.items() if k != key} == rest
        }
        none = {**base, "attention": "none"}
        plain = next((m for m, s in settings.items() if {**s, **_usual(s, base)} == none), "")
        found = {value: model for value, model in found.items() if model != plain}
        usual = _is_usual(base, key)
        if plain and usual and len(found) > max(1, len(best[1])):
            known = [value for value in axis.values if value in found]
            others = sorted(found.keys() - set(known), key=str)
            best = plain, {value: found[value] for value in (*known, *others)}
    return best


def _usual(settings: Mapping[str, object], base: Mapping[str, object]) -> dict[str, object]:
    """Without attention its options mean nothing: take them as those of the reference."""
    if settings.get("attention") != "none":
        return {}
    options = ("reduction", "squeeze", "gate", "gate_bias", "position", "stages", "gate_at")
    return {key: base[key] for key in options if key in base}


def _is_usual(base: Mapping[str, object], changed: str) -> bool:
    """Whether every other setting of the reference has its usual value too."""
    return all(
        base[key] == axis.reference for key, axis in AXES.items() if key in base and key != changed
    )
