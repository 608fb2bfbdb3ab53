"""What a part of the attention is worth: one setting changed at a time, each with its cost.

An axis is a setting. Its networks are those of a study that equal the reference, SE with its usual
settings, in everything else; each is compared with no attention at all, and with the reference.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from senet_lib.analysis.axes import AXES
from senet_lib.analysis.contrasts import MARGIN, Comparison
from senet_lib.analysis.errors import compare_runs, leaderboard
from senet_lib.analysis.families import OF_ATTENTION, by_model
from senet_lib.errors import SenetError, unknown
from senet_lib.models import all_settings
from senet_lib.runs.records import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ablation:
    """One axis, as far as the runs go.

    The frame has a row a value in the axis's order, the plain network first. Columns: value (None
    for it), label (in words), those of `errors.leaderboard` but for its interval, added_params
    (over the plain one's, a fraction), published (ImageNet error), those of `errors.compare_runs`
    from `difference` on, against the plain network and again as se_difference and so on against the
    usual SE; params_a_point, the parameters added for each percentage point of error less, where
    the decision is "better". What is missing is NaN, or "" for a decision.
    """

    frame: pd.DataFrame
    comparison: Comparison  # of the study against its plain networks
    with_se: Comparison  # and against SE with its usual settings


def find_axes(runs: Sequence[RunRecord]) -> list[str]:
    """Keys of the axes that the runs have at least two values of, in the order of `AXES`."""
    return [key for key in AXES if _find_members(runs, key)[1]]


def ablate(
    runs: Sequence[RunRecord], key: str, *, rng: np.random.Generator, margin: float = MARGIN
) -> Ablation | None:
    """One axis of a study; None where the runs have not two of its values, or not the plain
    network.

    Args:
        runs: all finished runs of the study, those of other axes too.
        key: a key of `AXES`.
        rng, margin: see `errors.compare_runs`.
    """
    if key not in AXES:
        raise unknown("axis", key, AXES)
    axis, (plain, found) = AXES[key], _find_members(runs, key)
    if not found:
        return None
    named = {plain: "no attention"}
    named |= {model: axis.values.get(value, str(value)) for value, model in found.items()}
    board = leaderboard(runs).drop(columns=["low", "high"]).set_index("model").loc[list(named)]
    frame = board.reset_index().assign(label=list(named.values()))
    frame["value"] = pd.Series([None, *found], dtype=object)  # None stays
    frame["published"] = [np.nan, *(axis.published.get(value, np.nan) for value in found)]
    comparison = compare_runs(runs, rng=rng, margin=margin)
    with_se = compare_runs(runs, rng=rng, against="se", margin=margin)
    for prefix, compared in (("", comparison), ("se_", with_se)):
        numbers = compared.frame.set_index("model").loc[:, "difference":].add_prefix(prefix)
        frame = frame.join(numbers, on="model")
        frame[f"{prefix}decision"] = frame[f"{prefix}decision"].fillna("")
    added = frame["num_params"] - frame["num_params"].iloc[0]
    frame["added_params"] = added / frame["num_params"].iloc[0]
    price = added / (-100 * frame["difference"])
    frame["params_a_point"] = price.where(frame["decision"] == "better")
    return Ablation(frame=frame, comparison=comparison, with_se=with_se)


def _find_members(runs: Sequence[RunRecord], key: str) -> tuple[str, dict[object, str]]:
    """The plain network and {value: model} of one axis; the larger family if there are two."""
    axis, settings = AXES[key], {}
    for model in by_model(runs):
        with suppress(SenetError):  # a network registered elsewhere
            settings[model] = all_settings(model)
    best: tuple[str, dict[object, str]] = ("", {})
    for base in settings.values():
        unusual = any(base[k] != one.reference for k, one in AXES.items() if k in base and k != key)
        if unusual or not {"attention", key} <= base.keys():
            continue
        plain = next((m for m, s in settings.items() if _without_attention(s, base)), "")
        others = {m: s for m, s in settings.items() if m != plain and key in s}
        found = {s[key]: m for m, s in others.items() if {**s, key: base[key]} == base}
        if plain and len(found) > max(1, len(best[1])):
            known = [value for value in axis.values if value in found]
            others = sorted(found.keys() - set(known), key=str)
            best = plain, {value: found[value] for value in (*known, *others)}
    return best


def _without_attention(settings: Mapping[str, object], base: Mapping[str, object]) -> bool:
    """Whether a network is another without attention, whatever the options that mean nothing."""
    ignored = dict.fromkeys(OF_ATTENTION & base.keys())
    return settings.get("attention") == "none" and {**settings, **ignored} == {**base, **ignored}
