"""What a part of the attention is worth: one setting changed at a time, each with its cost.

An axis is a setting. Its networks are those of a study that equal the reference, SE with its usual
settings, in everything else; each is compared with the network that has no attention at all, and
with the reference. Nothing is listed by hand, so a study with more values gives a longer table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_lib.analysis.contrasts import MARGIN, Comparison
from senet_lib.analysis.errors import compare_runs
from senet_lib.analysis.statistics import FEWEST_SEEDS
from senet_lib.errors import SenetError, unknown
from senet_lib.models import all_settings
from senet_lib.recipe import AXES as AXIS_KEYS
from senet_lib.report.table import Table, Text, escape
from senet_lib.runs.records import RunRecord
from senet_lib.runs.study import StudyRuns
from senet_lib.wording import counted, p_value, percent, points

if TYPE_CHECKING:
    import pandas as pd

PAPER = "Hu et al. 2018 (arXiv:1709.01507), section 6, SE-ResNet-50, ImageNet top-1 error"
RUNS_SECTION = "every-run"
NOTHING = (
    "The finished runs do not have two values of this axis and the network without attention, so "
    "there is nothing to compare."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One question of the ablation."""

    key: str
    """The setting that changes."""
    title: str
    """What it is, in words."""
    order: tuple[object, ...]
    """Values in the order in which they are shown; others follow."""
    reference: object
    """The value of the usual SE network."""
    words: Mapping[object, str] = field(default_factory=dict)
    """A value in words, where its name does not say enough."""
    published: Mapping[object, float] = field(default_factory=dict)
    """Published ImageNet error of each value, a fraction; the hypothesis for the order."""


AXES = {
    axis.key: axis
    for axis in (
        Axis(
            key="gate_at",
            title="Where the gate stands in a Res2Net block",
            order=(
                *("last", "last_from_z", "first2", "first2_from_z"),
                *("streams", "fused", "output", "literal"),
            ),
            reference="fused",
            words={
                "last": "on stream s",
                "last_from_z": "on stream s, from all of Z",
                "first2": "on streams 1 and 2",
                "first2_from_z": "on streams 1 and 2, from all of Z",
                "streams": "on each stream, an SE each",
                "fused": "on the fused map Z",
                "output": "on the branch's output",
                "literal": "on Z, without the last 1x1",
            },
        ),
        Axis(
            key="reduction",
            title="The reduction r of the gate's hidden layer",
            order=(2, 4, 8, 16, 32),
            reference=16,
            published={2: 0.2229, 4: 0.2225, 8: 0.2226, 16: 0.2228, 32: 0.2272},
        ),
        Axis(
            key="squeeze",
            title="The statistic that the squeeze takes of each channel",
            order=("avg", "max", "std"),
            reference="avg",
            words={"avg": "mean", "max": "maximum", "std": "standard deviation"},
            published={"avg": 0.2228, "max": 0.2257},
        ),
        Axis(
            key="gate",
            title="The gate's last non-linearity",
            order=("sigmoid", "tanh", "relu", "hard_sigmoid"),
            reference="sigmoid",
            published={"sigmoid": 0.2228, "tanh": 0.2300, "relu": 0.2347},
        ),
        Axis(
            key="position",
            title="Where SE stands in a residual block",
            order=("standard", "pre", "post", "identity"),
            reference="standard",
            words={
                "standard": "standard (end of the branch)",
                "pre": "pre (before the branch)",
                "post": "post (after the addition)",
                "identity": "identity (on the shortcut)",
            },
            published={"standard": 0.2228, "pre": 0.2223, "post": 0.2278, "identity": 0.2220},
        ),
        Axis(
            key="stages",
            title="Which stages have SE",
            order=((1,), (2,), (3,), None),
            reference=None,
            words={None: "all stages", (1,): "stage 1", (2,): "stage 2", (3,): "stage 3"},
            # The paper's stages 2, 3 and 4 of four; ours are the first, second and third of three.
            published={(1,): 0.2303, (2,): 0.2304, (3,): 0.2268, None: 0.2228},
        ),
        Axis(
            key="attention",
            title="Which attention",
            order=("se", "eca", "cbam", "scse", "ge", "scale", "half"),
            reference="se",
            words={
                "se": "SE",
                "eca": "ECA",
                "cbam": "CBAM",
                "scse": "scSE",
                "ge": "GE (no weights)",
                "scale": "a constant a channel",
                "half": "one half",
            },
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ablation:
    """One axis, as far as the runs go."""

    axis: Axis
    plain: str
    """Registry name of the network without attention."""
    reference: str
    """Registry name of SE with its usual settings; empty where it was not trained."""
    frame: "pd.DataFrame"
    """A row a value in the axis's order, the plain network first: value (None for it), label (the
    value in words), model, n, mean_error, sd_error, errors ({seed: error}), num_params, macs and
    published (ImageNet error, NaN where there is none); errors are fractions."""
    against_plain: "pd.DataFrame"
    """Each value's row of `errors.compare_runs` over the whole study, in the same order."""
    against_reference: "pd.DataFrame"
    """Likewise against the reference, which has no row."""
    comparison: Comparison
    """The former as a whole, with its spread and margin."""
    run: RunRecord
    """One of the runs, for what all of them share."""


assert tuple(AXES) == AXIS_KEYS, "the axes of a study's settings are those defined here"


def find_axes(runs: Sequence[RunRecord]) -> list[str]:
    """Keys of the axes that the runs have at least two values of, in the order of `AXES`."""
    return [key for key in AXES if _find_members(runs, AXES[key])[1]]


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
    plain, found = _find_members(runs, axis)
    if not found:
        return None
    groups = _group(runs)
    named = [(None, "no attention", plain)]
    named += [(value, axis.words.get(value, str(value)), m) for value, m in found.items()]
    rows = []
    for value, text, model in named:
        group = groups[model]
        errors = {run.seed: run.test_error for run in group}
        values = np.array(list(errors.values()))
        rows.append({
            "value": value,
            "label": text,
            "model": model,
            "n": len(values),
            "mean_error": values.mean(),
            "sd_error": values.std(ddof=1) if len(values) > 1 else np.nan,
            "errors": errors,
            "num_params": group[0].num_params,
            "macs": group[0].macs,
            "published": axis.published.get(value, np.nan) if model != plain else np.nan,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["value"] = pd.Series([value for value, _, _ in named], dtype=object)  # None stays
    comparison = compare_runs(runs, rng=rng, margin=margin)
    reference = compare_runs(runs, rng=rng, against="se", margin=margin)
    return Ablation(
        axis=axis,
        plain=plain,
        reference=found.get(axis.reference, ""),
        frame=frame,
        against_plain=_rows(comparison, found.values()),
        against_reference=_rows(reference, found.values()),
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


def _rows(compared: Comparison, models: Iterable[str]) -> "pd.DataFrame":
    """The rows of those models that are compared."""
    there = set(compared.frame["model"])
    return compared.of([model for model in models if model in there])


def _group(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        if not run.overrides:
            groups.setdefault(run.model, []).append(run)
    return groups


def _find_members(runs: Sequence[RunRecord], axis: Axis) -> tuple[str, dict[object, str]]:
    """The plain network and {value: model} of one axis; the larger family if there are two."""
    settings = {}
    for model in _group(runs):
        try:
            settings[model] = all_settings(model)
        except SenetError:  # a network registered elsewhere
            continue
    best: tuple[str, dict[object, str]] = ("", {})
    for base in settings.values():
        if base.get("attention") != "se" or base.get(axis.key, "") != axis.reference:
            continue
        rest = {k: v for k, v in base.items() if k != axis.key}
        found = {
            s[axis.key]: model
            for model, s in settings.items()
            if axis.key in s and {k: v for k, v in s.items() if k != axis.key} == rest
        }
        none = {**base, "attention": "none"}
        plain = next((m for m, s in settings.items() if {**s, **_usual(s, base)} == none), "")
        found = {value: model for value, model in found.items() if model != plain}
        usual = _is_usual(base, axis)
        if plain and usual and len(found) > max(1, len(best[1])):
            ranked = sorted(found, key=lambda v: _rank(axis, v))
            best = plain, {value: found[value] for value in ranked}
    return best


def _usual(settings: Mapping[str, object], base: Mapping[str, object]) -> dict[str, object]:
    """Without attention its options mean nothing: take them as those of the reference."""
    if settings.get("attention") != "none":
        return {}
    options = ("reduction", "squeeze", "gate", "gate_bias", "position", "stages", "gate_at")
    return {key: base[key] for key in options if key in base}


def _is_usual(base: Mapping[str, object], axis: Axis) -> bool:
    """Whether every other setting of the reference has its usual value too."""
    return all(
        base[other.key] == other.reference
        for other in AXES.values()
        if other.key in base and other.key != axis.key
    )


def _rank(axis: Axis, value: object) -> tuple[int, str]:
    known = axis.order.index(value) if value in axis.order else len(axis.order)
    return known, str(value)


# Tables and sentences


def question(key: str) -> Text:
    """The axis in words, and the published order that is the hypothesis.

    Raises:
        UnknownNameError: there is no such axis.
    """
    if key not in AXES:
        raise unknown("axis", key, AXES)
    axis = AXES[key]
    if not axis.published:
        return Text(
            f"**{axis.title}.** No published order of these values is taken as a hypothesis."
        )
    ordered = sorted(axis.published.items(), key=lambda pair: pair[1])
    listed = ", ".join(f"{axis.words.get(v, str(v))} {percent(e)} %" for v, e in ordered)
    return Text(
        f"**{axis.title}.** Hypothesis: the order of {PAPER}: {listed}; without SE 23.30 %."
    )


def axis_table(found: Ablation | None) -> Table:
    """Each value of the axis: cost, error, difference from the plain network, and what it costs."""
    import pandas as pd

    if found is None:
        return Table(pd.DataFrame(), empty=NOTHING)
    compared = found.against_plain.set_index("model").to_dict("index")
    references = found.against_reference.set_index("model").to_dict("index")
    plain = found.frame.iloc[0]
    rows = []
    for row in found.frame.to_dict("records"):
        here, there = compared.get(row["model"]), references.get(row["model"])
        added = row["num_params"] - plain["num_params"]
        rows.append(
            {
                found.axis.key: row["label"],
                "parameters": f"{row['num_params']:,}"
                + (f" ({100 * added / plain['num_params']:+.2f} %)" if here else ""),
                "MACs": f"{row['macs'] / 1e6:.2f} M",
                "n": row["n"],
                "error %": percent(row["mean_error"]),
                "difference": points(here["difference"]) if here else "",
                "95 % interval": _ends(here),
                "p": p_value(here["p"]) if here else "",
                "decision": here["decision"] if here else "",
                "parameters a point": _per_point(added, here),
                "from SE": points(there["difference"]) if there else "",
                "95 % interval from SE": _ends(there),
                "decision from SE": there["decision"] if there else "",
                "published %": "" if np.isnan(row["published"]) else percent(row["published"]),
            }
        )
    frame = pd.DataFrame(rows)
    if not any(frame["published %"]):
        frame = frame.drop(columns="published %")
    note = f"; published: {PAPER}" if "published %" in frame else ""
    spread = found.comparison.spread
    return Table(
        frame,
        f"{found.axis.title}: error in percent; difference from {found.plain} and from SE in "
        "percentage points, below zero is better, with Dunnett's intervals and p over all networks "
        f"of the study, from the pooled standard deviation of {percent(spread.sd)} points (one for "
        f"all: p = {spread.p_homogeneous:.3f}); parameters a point: added parameters for each "
        f"point of error less{note}",
        text_columns=(found.axis.key, "decision", "decision from SE"),
    )


def axis_answer(found: Ablation | None) -> Text:
    """What the runs say about one axis, and how far it goes."""
    if found is None:
        return Text(NOTHING)
    ranked = found.frame.iloc[1:].sort_values("mean_error", kind="stable")
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    best_error, worst_error = percent(best["mean_error"]), percent(worst["mean_error"])
    parts = [
        f"{escape(_setting(found))} Of {counted(len(ranked), 'value')}, "
        f"**{escape(best['label'])}** has the lowest mean error ({best_error} %) and "
        f"{escape(worst['label'])} the highest ({worst_error} %); without attention it is "
        f"{percent(found.frame['mean_error'].iloc[0])} %."
    ]
    labels = found.frame.set_index("model")["label"]
    for name, rows in (("no attention", found.against_plain), ("SE", found.against_reference)):
        for row in rows[rows["decision"].isin(["better", "worse"])].to_dict("records"):
            parts.append(
                f"{escape(labels[row['model']])} is {row['decision']} than {name} by at least "
                f"{percent(row['at_least'])} percentage points."
            )
    decided = found.against_plain["decision"].isin(["better", "worse"])
    if not decided.any():
        parts.append("No value is told from no attention.")
    if not np.isnan(detectable := found.against_plain["detectable"].max()):
        parts.append(
            f"A difference of {percent(detectable)} percentage points would be found with 80 % "
            "power."
        )
    fewest = int(found.frame["n"].min())
    if fewest < FEWEST_SEEDS:
        parts.append(f"With {counted(fewest, 'seed')} a network, the order is not established.")
    if (agreement := rank_agreement(found)) is not None:
        tau, p, n = agreement
        parts.append(
            f"Against the order of the SENet paper's ImageNet errors of these {n} values, "
            f"Kendall's tau is {tau:+.2f} (p = {p:.2f}; the most that so few values can show is "
            "little)."
        )
    return Text(" ".join(parts))


def _setting(found: Ablation) -> str:
    """The protocol in a sentence: what stands beside every figure."""
    recipe, run = found.run.recipe, found.run
    chosen = recipe.get("train_images", 0)
    images = f"{chosen:,} training images of {run.data}" if chosen else f"all images of {run.data}"
    return (
        f"Protocol {run.protocol}: {recipe['epochs']} epochs over {images}, {run.precision}, "
        f"seeds {', '.join(map(str, found.frame['errors'].iloc[0]))}."
    )


def show(found: Ablation | None) -> None:
    """Display the figure of an axis, or say that there is nothing to draw."""
    from IPython.display import display

    from senet_lib.figures import ablation as ablation_plots
    from senet_lib.report.table import show as show_figure

    if found is None:
        display(Text(NOTHING))
    else:
        show_figure(ablation_plots.axis(found))


def show_all(study: StudyRuns) -> None:
    """Display every axis of a study: its figure, its table, its answer and where they come from."""
    from IPython.display import display

    keys = study.settings.axes if study.settings else find_axes(study.runs)
    if not keys:
        display(Text("This study changes no single setting of the attention."))
    for key in keys:
        found = ablate(study.runs, key, rng=np.random.default_rng(0))
        display(Text(f"### {AXES[key].title}"))
        show(found)
        if found is not None:
            display(axis_table(found), axis_answer(found), sources(study, found))


def sources(study: StudyRuns, found: Ablation) -> Text:
    """The notebook and the runs behind an axis, as links."""
    pages = {}
    for suffix in ("html", "ipynb"):
        path = study.page_folder / f"ablation-{found.axis.key}.{suffix}"
        if path.is_file():
            pages[suffix] = f"[{path.name}]({path.name})"
    models = set(found.frame["model"])
    runs = sum(run.model in models for run in study.runs)
    parts = [f"Behind this figure: {counted(runs, 'run')}, listed [below](#{RUNS_SECTION})"]
    parts += [f"notebook {', '.join(pages.values())}"] if pages else []
    return Text("; ".join(parts) + ".")


def _per_point(added: int, row: Mapping[str, Any] | None) -> str:
    """Added parameters for each percentage point of error less; nothing where that may be none."""
    if row is None or row["decision"] != "better":
        return ""
    return f"{added / (-100 * row['difference']):,.0f}"


def _ends(row: Mapping[str, Any] | None) -> str:
    if row is None or np.isnan(row["low"]):
        return ""
    return f"{points(row['low'])} to {points(row['high'])}"
