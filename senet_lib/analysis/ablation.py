"""What a part of the attention is worth: one setting changed at a time, each with its cost.

An axis is a setting. Its members are the networks of a study that equal the reference, SE with its
usual settings, in everything else; each is compared, seed by seed, with the network that has no
attention at all. Nothing is listed by hand, so a study with more values gives a longer table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.statistics import FEWEST_SEEDS
from senet_lib.errors import SenetError, unknown
from senet_lib.models import all_settings
from senet_lib.recipe import AXES as AXIS_KEYS
from senet_lib.report.table import Table, Text, escape
from senet_lib.runs.records import RunRecord
from senet_lib.runs.study import StudyRuns
from senet_lib.wording import counted, p_value, percent, points, span

if TYPE_CHECKING:
    from senet_lib.analysis.statistics import Comparison

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
            order=("last", "first2", "fused", "output"),
            reference="fused",
            words={
                "last": "on stream s",
                "first2": "on streams 1 and 2",
                "fused": "on the fused map Z",
                "output": "on the branch's output",
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
            order=("se", "eca", "cbam", "scse", "ge"),
            reference="se",
            words={
                "se": "SE",
                "eca": "ECA",
                "cbam": "CBAM",
                "scse": "scSE",
                "ge": "GE (no weights)",
            },
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One value of an axis, as measured."""

    value: object
    """The setting's value."""
    label: str
    """The value in words."""
    model: str
    """Registry name, with settings."""
    errors: Mapping[int, float]
    """Error of each seed, a fraction."""
    num_params: int
    """Parameters."""
    macs: int
    """Multiply-accumulates of convolutions and linear layers for one image."""
    against_plain: "Comparison"
    """Error minus that of the network without attention, over the shared seeds."""
    adjusted_p: float | None
    """p of the paired t test, adjusted by Holm's method over the axis."""
    published: float | None
    """Published ImageNet error of this value, a fraction."""

    @property
    def mean(self) -> float:
        """Mean error over the seeds, a fraction."""
        return float(np.mean(list(self.errors.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One axis, as far as the runs go."""

    axis: Axis
    plain: str
    """Registry name of the network without attention."""
    plain_errors: Mapping[int, float]
    """Its error of each seed, a fraction."""
    plain_params: int
    plain_macs: int
    members: tuple[Member, ...]
    """Values in the axis's order."""
    run: RunRecord
    """One of the runs, for what all of them share."""


assert tuple(AXES) == AXIS_KEYS, "the axes of a study's settings are those defined here"


def find_axes(runs: Sequence[RunRecord]) -> list[str]:
    """Keys of the axes that the runs have at least two values of, in the order of `AXES`."""
    return [key for key in AXES if _find_members(runs, AXES[key])[1]]


def ablate(runs: Sequence[RunRecord], key: str) -> Ablation | None:
    """One axis of a study.

    Args:
        runs: finished runs of one recipe, data and split, as `runs.study.collect` gives them.
        key: a key of `AXES`.
    Returns:
        The axis; None where the runs have not two of its values, or not the plain network.
    Raises:
        UnknownNameError: there is no such axis.
    """
    if key not in AXES:
        raise unknown("axis", key, AXES)
    from senet_lib.analysis import statistics as stats

    axis = AXES[key]
    plain, found = _find_members(runs, axis)
    if not found:
        return None
    groups = _group(runs)
    plain_errors = {run.seed: run.test_error for run in groups[plain]}
    compared = {
        model: stats.compare(
            plain_errors,
            {run.seed: run.test_error for run in groups[model]},
            rng=np.random.default_rng(0),
        )
        for model in found.values()
    }
    adjusted = stats.holm({model: result.p_paired for model, result in compared.items()})
    members = tuple(
        Member(
            value=value,
            label=axis.words.get(value, str(value)),
            model=model,
            errors={run.seed: run.test_error for run in groups[model]},
            num_params=groups[model][0].num_params,
            macs=groups[model][0].macs,
            against_plain=compared[model],
            adjusted_p=adjusted[model],
            published=axis.published.get(value),
        )
        for value, model in found.items()
    )
    first = groups[plain][0]
    return Ablation(
        axis=axis,
        plain=plain,
        plain_errors=plain_errors,
        plain_params=first.num_params,
        plain_macs=first.macs,
        members=members,
        run=first,
    )


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
    plain = np.array(list(found.plain_errors.values()))
    rows = [
        {
            found.axis.key: "no attention",
            "parameters": f"{found.plain_params:,}",
            "MACs": f"{found.plain_macs / 1e6:.2f} M",
            "n": len(plain),
            "error %": percent(plain.mean()),
            "SD": percent(_sd(plain)),
        }
    ]
    for member in found.members:
        errors, result = np.array(list(member.errors.values())), member.against_plain
        added = member.num_params - found.plain_params
        rows.append(
            {
                found.axis.key: member.label,
                "parameters": f"{member.num_params:,} ({100 * added / found.plain_params:+.2f} %)",
                "MACs": f"{member.macs / 1e6:.2f} M",
                "n": len(errors),
                "error %": percent(errors.mean()),
                "SD": percent(_sd(errors)),
                "difference": "" if result.mean is None else points(result.mean),
                "95 % interval": span(result.t_interval, points),
                "p (Holm)": p_value(member.adjusted_p),
                "parameters a point": _per_point(added, result.mean),
                "published %": "" if member.published is None else percent(member.published),
            }
        )
    frame = pd.DataFrame(rows).fillna("")
    if not any(frame["published %"]):
        frame = frame.drop(columns="published %")
    note = f"; published: {PAPER}" if "published %" in frame else ""
    return Table(
        frame,
        f"{found.axis.title}: error in percent; difference from {found.plain} in percentage "
        "points over shared seeds, below zero is better, with its t interval and the p of the "
        "paired t test, adjusted over the axis; parameters a point: added parameters for each "
        f"point of error less{note}",
        text_columns=(found.axis.key,),
    )


def axis_answer(found: Ablation | None) -> Text:
    """What the runs say about one axis, and how far it goes."""
    if found is None:
        return Text(NOTHING)
    members = sorted(found.members, key=lambda m: m.mean)
    best, worst = members[0], members[-1]
    parts = [
        f"{escape(_setting(found))} Of {counted(len(members), 'value')}, **{escape(best.label)}** "
        f"has the lowest mean error ({percent(best.mean)} %) and {escape(worst.label)} the highest "
        f"({percent(worst.mean)} %); without attention it is "
        f"{percent(float(np.mean(list(found.plain_errors.values()))))} %."
    ]
    clear = [
        m
        for m in found.members
        if (t := m.against_plain.t_interval) is not None and t.low * t.high > 0
    ]
    if clear:
        named = ", ".join(f"{escape(m.label)} ({points(m.against_plain.mean)})" for m in clear)
        parts.append(
            "The 95 % interval of the difference from no attention leaves out zero for "
            f"{named} percentage points."
        )
    else:
        parts.append(
            "No value's 95 % interval of the difference from no attention leaves out zero."
        )
    detectable = [m.against_plain.detectable for m in found.members if m.against_plain.detectable]
    if detectable:
        parts.append(
            "With these seeds and their spread, the smallest difference that a paired t test finds "
            f"with 80 % power lies between {percent(min(detectable))} and "
            f"{percent(max(detectable))} percentage points."
        )
    fewest = min(len(m.errors) for m in found.members)
    if fewest < FEWEST_SEEDS:
        parts.append(f"With {counted(fewest, 'seed')} a network, the order is not established.")
    if (order := order_text(found)) is not None:
        parts.append(order)
    return Text(" ".join(parts))


def order_text(found: Ablation) -> str | None:
    """How the order of the errors agrees with the published one, if there is one."""
    from scipy.stats import kendalltau

    pairs = [(m.published, m.mean) for m in found.members if m.published is not None]
    if len(pairs) < 2:
        return None
    if len(pairs) == 2:
        same = (pairs[0][0] < pairs[1][0]) == (pairs[0][1] < pairs[1][1])
        agrees = "the same" if same else "the opposite"
        return f"The two values that the SENet paper compares on ImageNet stand in {agrees} order."
    tau = kendalltau(*zip(*pairs, strict=True))
    return (
        f"Against the order of the SENet paper's ImageNet errors of these {len(pairs)} values, "
        f"Kendall's tau is {tau.statistic:+.2f} (p = {tau.pvalue:.2f}; the most that so few values "
        "can show is little)."
    )


def _setting(found: Ablation) -> str:
    """The protocol in a sentence: what stands beside every figure."""
    recipe, run = found.run.recipe, found.run
    chosen = recipe.get("train_images", 0)
    images = f"{chosen:,} training images of {run.data}" if chosen else f"all images of {run.data}"
    return (
        f"Protocol {run.protocol}: {recipe['epochs']} epochs over {images}, {run.precision}, "
        f"seeds {', '.join(map(str, sorted(found.plain_errors)))}."
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
        found = ablate(study.runs, key)
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
    models = {found.plain, *(member.model for member in found.members)}
    runs = sum(run.model in models for run in study.runs)
    parts = [f"Behind this figure: {counted(runs, 'run')}, listed [below](#{RUNS_SECTION})"]
    parts += [f"notebook {', '.join(pages.values())}"] if pages else []
    return Text("; ".join(parts) + ".")


def _per_point(added: int, difference: float | None) -> str:
    """Added parameters for each percentage point of error less; a dash where it did not fall."""
    if difference is None:
        return ""
    return f"{added / (-100 * difference):,.0f}" if difference < 0 else "–"


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
