"""Figures, tables and the answer about gates, in the language of `style`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.gates import (
    CONSTANT_SD,
    NEAR_ONE,
    NEAR_ZERO,
    Importance,
    Scores,
    Subject,
    class_means,
    class_spread,
    layer_table,
    stage_table,
)
from senet_lib.figures.style import BLUE, FURTHER, INK, MUTED, VERMILION, WIDTH, styled
from senet_lib.report.table import Link, Table, Text, escape
from senet_lib.runs.records import RECORD, anchored
from senet_lib.wording import counted, p_value, percent, points

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASS_LOOKS = ((BLUE, "-"), (VERMILION, "--"), (FURTHER[0], "-."), (FURTHER[4], ":"))
QUARTILES = (0.25, 0.75)

# Figures


def telling_classes(means: np.ndarray) -> list[int]:
    """Up to four classes: the two whose mean gates differ most, each with its nearest one.

    Args:
        means: (K, C), mean gates of each class in one layer; rows of NaN are left out.
    """
    present = np.flatnonzero(np.isfinite(means).all(1))
    if len(present) < 2:
        return [int(k) for k in present]
    gap = np.linalg.norm(means[present][:, None] - means[present][None], axis=2)  # (K, K)
    ends = [int(i) for i in np.unravel_index(gap.argmax(), gap.shape)]
    np.fill_diagonal(gap, np.inf)
    chosen = [i for end in ends for i in (end, int(gap[end].argmin()))]
    return [int(present[i]) for i in dict.fromkeys(chosen)]


@styled
def class_gates(
    figure: "Figure",
    means: Mapping[str, np.ndarray],
    classes: Sequence[str],
    chosen: Sequence[int] | None = None,
) -> str:
    """Mean gate of each class over the channels, one panel a layer and one line a class.

    A layer's channels are sorted by their mean over all classes, for their own order means nothing;
    the lines of one panel share the order.

    Args:
        means: layer to (K, C), as `class_means` gives them; the layers to draw.
        classes: K names.
        chosen: classes drawn in colour; None for the telling ones of the last layer.
    Source: Hu et al. 2018 (arXiv:1709.01507), figure 5.
    """
    if chosen is None:
        chosen = telling_classes(list(means.values())[-1])
    figure.set_size_inches(WIDTH, 0.6 + 2.3 * len(means))
    panels = figure.subplots(len(means), 1, squeeze=False)[:, 0]
    said = []
    for axes, (layer, values) in zip(panels, means.items(), strict=True):
        overall = np.nanmean(values, 0)
        sorted_values = values[:, np.argsort(overall, kind="stable")]
        x = np.arange(1, values.shape[1] + 1)
        others = [k for k in range(len(values)) if k not in chosen[: len(CLASS_LOOKS)]]
        for k in others:
            name = "other classes" if k == others[0] else None
            axes.plot(x, sorted_values[k], color=MUTED, lw=0.7, alpha=0.5, label=name)
        for k, (color, line) in zip(chosen, CLASS_LOOKS, strict=False):
            axes.plot(x, sorted_values[k], line, color=color, lw=1.6, label=classes[k])
        axes.set_title(layer.removesuffix(".attention"))
        axes.set_ylabel("mean gate")
        axes.margins(x=0.01)
        gap = float(np.nanmean(np.nanmax(values, 0) - np.nanmin(values, 0)))
        said.append(
            f"{layer}: mean gate {overall.mean():.2f}, from {overall.min():.2f} to "
            f"{overall.max():.2f} over the channels; highest and lowest class of a channel differ "
            f"by {gap:.3f} on average"
        )
    panels[-1].set_xlabel("channel, sorted by its mean gate")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=10)
    names = ", ".join(classes[k] for k in chosen[: len(CLASS_LOOKS)])
    return f"Mean gate of each class over the channels, in colour {names}. " + "; ".join(said) + "."


@styled
def extreme_gates(figure: "Figure", table: "pd.DataFrame") -> str:
    """Share of gates near 0 and near 1, and of constant channels, over the layers in order.

    Args:
        table: of `layer_table`.
    """
    figure.set_size_inches(WIDTH, 3.6)
    axes = figure.subplots()
    lines = (
        ("near_zero_share", f"gates below {NEAR_ZERO}", BLUE, "o", "--", "white"),
        ("near_one_share", f"gates above {NEAR_ONE}", VERMILION, "^", "-", VERMILION),
        ("constant_share", "constant channels", INK, "s", ":", INK),
    )
    x = np.arange(1, len(table) + 1)
    said = []
    for column, name, color, marker, line, fill in lines:
        values = 100 * table[column].to_numpy()
        marks = {"marker": marker, "mfc": fill, "ms": _mark_size(len(x))}
        axes.plot(x, values, line, color=color, lw=1.8, label=name, **marks)
        said.append(f"{name} {_list(values)}")
    axes.set_ylim(-3, 103)
    axes.set_ylabel("share (%)")
    _mark_stages(axes, table)
    figure.legend(loc="outside lower center", ncols=3, fontsize=10)
    return f"Percent in each layer, from first to last: {'; '.join(said)}."


@styled
def class_share(figure: "Figure", subject: Subject) -> str:
    """Share of the gates' variance that lies between classes, over the layers in order.

    Solid: the trained network, all channels of a layer together; the band holds the middle half of
    its channels. Dashed: the same network before training. Dotted: what labels without any relation
    to the gates would give.
    """
    spreads = class_spread(subject.gates, subject.labels)
    before = class_spread(subject.untrained, subject.labels)
    trained = 100 * np.array([s.total_share for s in spreads.values()])
    untrained = 100 * np.array([before[layer].total_share for layer in spreads])
    band = [_quartiles(s.share) for s in spreads.values()]
    chance = 100 * next(iter(spreads.values())).chance
    figure.set_size_inches(WIDTH, 3.6)
    axes = figure.subplots()
    x = np.arange(1, len(trained) + 1)
    axes.fill_between(
        x, *100 * np.array(band).T, color=VERMILION, alpha=0.18, lw=0,
        label="middle half of the channels",
    )  # fmt: skip
    size = _mark_size(len(x))
    axes.plot(x, trained, "o-", color=VERMILION, ms=size, lw=1.8, label="trained")
    axes.plot(x, untrained, "o--", color=BLUE, mfc="white", ms=size, lw=1.8, label="untrained")
    axes.axhline(chance, color=INK, ls=":", lw=1.5, label="chance")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("variance between classes (%)")
    _mark_stages(axes, layer_table(subject.gates, subject.labels))
    figure.legend(loc="outside lower center", ncols=4, fontsize=10)
    return (
        "Percent of the variance of the gates between classes in each layer, from first to last: "
        f"trained {_list(trained)}; untrained {_list(untrained)}; by chance {chance:.1f}."
    )


def _list(values: np.ndarray) -> str:
    return ", ".join("none" if np.isnan(value) else f"{value:.1f}" for value in values)


def _quartiles(shares: np.ndarray) -> np.ndarray:
    shares = shares[np.isfinite(shares)]
    return np.quantile(shares, QUARTILES) if len(shares) else np.full(2, np.nan)


def _mark_size(num_layers: int) -> float:
    return 6 if num_layers <= 20 else 3.5  # points


def _mark_stages(axes: "Axes", table: "pd.DataFrame") -> None:
    """Number the layers, and name the stages above thin lines where one ends."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, len(table) + 0.5)
    axes.set_xlabel("attention layer, counted from the image")
    axes.grid(axis="x", visible=False)
    if table["stage"].isna().any():
        return
    for stage, rows in table.groupby("stage"):
        first, last = rows.index[0] + 1, rows.index[-1] + 1
        axes.annotate(
            f"stage {stage}", ((first + last) / 2, 1.02), xycoords=("data", "axes fraction"),
            ha="center", color=MUTED, fontsize=10,
        )  # fmt: skip
        if last < len(table):
            axes.axvline(last + 0.5, color=MUTED, lw=0.8)


@styled
def importance(figure: "Figure", found: Sequence[Importance]) -> str:
    """What a channel's mean gate says of its worth: one panel a layer, one point a channel."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure.set_size_inches(WIDTH, 0.3 + 3.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    said = []
    for axes, one in zip(panels, found, strict=False):
        axes.axhline(0, color=INK, lw=1)
        axes.plot(one.mean_gate, one.loss_change, "o", color=VERMILION, ms=4.5, alpha=0.6, mew=0)
        rho, _ = one.rank_correlation()
        shown = _correlation(rho)
        axes.set_title(f"{one.layer.removesuffix('.attention')}\nrank correlation {shown}")
        axes.set_xlabel("mean gate")
        axes.locator_params(axis="x", nbins=4)
        said.append(
            f"{one.layer}: {counted(len(one.channels), 'channel')}, rank correlation {shown}, loss "
            f"change from {one.loss_change.min():+.3f} to {one.loss_change.max():+.3f}"
        )
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    for axes in panels[: len(found) : columns]:
        axes.set_ylabel("loss without the channel,\nchange in nats")
    return f"Mean gate of each channel against what zeroing it costs. {'; '.join(said)}."


# Tables


def subject_view(subject: Subject, page_folder: str | Path = "") -> Table:
    """Which network and which images, with links from a page in `page_folder` to the run."""
    import pandas as pd

    run = subject.run
    folder = Path(page_folder or anchored("outputs/reports") / run.study)
    names = {"train.html": "page", "train.ipynb": "notebook", RECORD: "record"}
    links = [Link.to(run.path / name, text, folder) for name, text in names.items()]
    rows = {
        "network": f"{run.model}, seed {run.seed}",
        "run": links,
        f"{run.evaluated_on} error of the run": f"{percent(run.test_error)} %",
        "images": f"{len(subject.labels):,} of {subject.data}, {run.evaluated_on}",
        "attention layers": f"{len(subject.gates.layers):,}",
    }
    if subject.gates.averaged:
        rows["averaged over the map"] = ", ".join(subject.gates.averaged)
    frame = pd.DataFrame({"name": list(rows), "value": list(rows.values())})
    return Table(frame, text_columns=("name", "value"), row_names=True)


def layers_view(table: "pd.DataFrame") -> Table:
    """The layers one by one: `layer_table` with numbers as text."""
    import pandas as pd

    frame = pd.DataFrame({
        "layer": table["layer"].str.removesuffix(".attention"),
        "channels": table["channels"].map("{:,}".format),
        "mean gate": table["mean"].map("{:.3f}".format),
        f"below {NEAR_ZERO}": table["near_zero"].map("{:,}".format),
        f"above {NEAR_ONE}": table["near_one"].map("{:,}".format),
        "constant channels": table["constant"].map("{:,}".format),
        "between classes (%)": table["class_share"].map(percent),
    })  # fmt: skip
    caption = (
        "The gates of each layer over all images. A channel is constant if its gate's standard "
        f"deviation over the images is below {CONSTANT_SD}"
    )
    return Table(frame, caption, text_columns=("layer",))


def stages_view(table: "pd.DataFrame") -> Table:
    """Early against late: `stage_table` of `layer_table`'s rows, with numbers as text."""
    import pandas as pd

    stages = stage_table(table)
    frame = pd.DataFrame({
        "stage": stages["stage"].map("{:.0f}".format),
        "layers": stages["layers"].map("{:,}".format),
        "mean gate": stages["mean"].map("{:.3f}".format),
        f"below {NEAR_ZERO} (%)": stages["near_zero_share"].map(percent),
        f"above {NEAR_ONE} (%)": stages["near_one_share"].map(percent),
        "constant (%)": stages["constant_share"].map(percent),
        "between classes (%)": stages["class_share"].map(percent),
    })  # fmt: skip
    return Table(
        frame,
        "Mean over the layers of each stage",
        text_columns=("stage",),
        empty="The paths of these layers name no stages.",
    )


def fix_stages(subject: Subject) -> dict[str, Scores]:
    """Scores of the network as it is ("none"), with the gates of each stage at their means over
    the images, and with all of them there ("all")."""
    gates = subject.gates
    found = {"none": subject.fix([])}
    for stage in dict.fromkeys(filter(None, map(gates.stage, gates.layers))):
        found[f"stage {stage}"] = subject.fix(x for x in gates.layers if gates.stage(x) == stage)
    return {**found, "all": subject.fix(gates.layers)}


def fixed_view(fixed: Mapping[str, Scores]) -> Table:
    """`fix_stages` as a table, with the changes from the untouched network, image by image."""
    import pandas as pd

    plain = fixed["none"]
    rows = []
    for name, scores in fixed.items():
        row = {"gates fixed": name, "error (%)": percent(scores.error), "change (points)": ""}
        row |= {"loss (nats)": f"{scores.loss:.4f}", "change (nats)": "", "95 % interval": ""}
        if name != "none":
            row["change (points)"] = points(scores.error - plain.error)
            row["change (nats)"] = _signed(scores.loss - plain.loss)
            row["95 % interval"] = " to ".join(map(_signed, _loss_interval(plain, scores)))
        rows.append(row)
    caption = (
        "Error and loss with gates that are the same for every image, their own means; the t "
        "interval is that of the change of loss over images"
    )
    return Table(pd.DataFrame(rows), caption, text_columns=("gates fixed",))


def _loss_interval(plain: Scores, other: Scores) -> tuple[float, float]:
    """95 % t interval of the mean change of loss over images; infinite for a single image."""
    from senet_lib.analysis.statistics import interval

    changes = other.losses - plain.losses
    if len(changes) < 2:
        return -np.inf, np.inf
    found = interval(changes)  # none where all changes are equal
    return (changes[0], changes[0]) if found is None else (found.low, found.high)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _correlation(rho: float) -> str:
    """Two decimals and a sign; a dash where there is none, and no sign at zero."""
    return "–" if np.isnan(rho) else f"{round(rho, 2) + 0.0:+.2f}".replace("-", "−")


def importance_view(found: Sequence[Importance]) -> Table:
    """What single channels are worth in each layer."""
    import pandas as pd

    rows = []
    for one in found:
        rho, p = one.rank_correlation()
        rows.append({
            "layer": one.layer.removesuffix(".attention"),
            "channels": f"{len(one.channels):,}",
            "median (nats)": _signed(float(np.median(one.loss_change))),
            "largest (nats)": _signed(float(one.loss_change.max())),
            "largest (points)": points(float(one.error_change.max())),
            "loss falls": f"{int((one.loss_change < 0).sum()):,}",
            "correlation": _correlation(rho),
            "p": p_value(None if np.isnan(p) else p),
        })  # fmt: skip
    images = counted(found[0].num_images, "image") if found else "no image"
    caption = (
        f"Change of loss and error when a single channel is zeroed, over {images}, for how many "
        "channels the loss falls, and Spearman's correlation of mean gate and change of loss"
    )
    return Table(pd.DataFrame(rows), caption, text_columns=("layer",))


# The answer


def answer(subject: Subject, fixed: Mapping[str, Scores], found: Sequence[Importance]) -> Text:
    """What these gates do, in a few sentences, with numbers from the measurement alone."""
    table = layer_table(subject.gates, subject.labels)
    run, parts = subject.run, []
    num_gates = sum(values.size for values in subject.gates.values.values())
    low, high = (100 * table[name].sum() / num_gates for name in ("near_zero", "near_one"))
    parts.append(
        f"Over {counted(len(subject.labels), 'image')}, {low:.1f} % of the gates of "
        f"{escape(run.model)} (seed {run.seed}) lie below {NEAR_ZERO} and {high:.1f} % above "
        f"{NEAR_ONE}; {table['constant'].sum():,} of {table['channels'].sum():,} channels are "
        "constant."
    )
    parts.append(_depth_sentence(subject, table))
    parts.append(_fixed_sentence(fixed["none"], fixed["all"]))
    parts += [_importance_sentence(found)] if found else []
    return Text(" ".join(parts))


def _depth_sentence(subject: Subject, table: "pd.DataFrame") -> str:
    stages = stage_table(table)
    if len(stages) < 2:
        first, last, names = table.iloc[0], table.iloc[-1], ("the first layer", "the last")
    else:
        first, last = stages.iloc[0], stages.iloc[-1]
        names = (f"stage {first['stage']:.0f}", f"stage {last['stage']:.0f}")
    before = stage_table(layer_table(subject.untrained, subject.labels))
    early, late = first["class_share"], last["class_share"]
    text = (
        f"The class accounts for {percent(early)} % of the gates' variance in {names[0]} and for "
        f"{percent(late)} % in {names[1]} (by chance {percent(table['chance'].iloc[0])} %), so "
    )
    if np.isnan(early) or np.isnan(late):
        text += "the two cannot be compared"
    else:
        way = "more" if late > early else "less"
        text += f"the late gates depend on the class {way} than the early ones"
    if len(before) >= 2:
        share = percent(before["class_share"].iloc[-1])
        text += f"; in {names[1]} of the untrained network it is {share} %"
    return text + "."


def _fixed_sentence(plain: Scores, fixed: Scores) -> str:
    low, high = _loss_interval(plain, fixed)
    if low > 0:
        verdict = "what the gates make of the single image is of use to this network"
    elif high < 0:
        verdict = "the network does better without what its gates make of the single image"
    else:
        verdict = "these images do not show that the gates need to see the image"
    return (
        f"With every gate at its mean over the images the error goes from {percent(plain.error)} % "
        f"to {percent(fixed.error)} %, and the loss changes by {_signed(fixed.loss - plain.loss)} "
        f"nats (95 % interval over images {_signed(low)} to {_signed(high)}): {verdict}."
    )


def _importance_sentence(found: Sequence[Importance]) -> str:
    said = []
    for one in found:
        shown = _correlation(one.rank_correlation()[0])
        said.append(f"{shown} in {escape(one.layer.removesuffix('.attention'))}")
    return (
        "The rank correlation between a channel's mean gate and what zeroing it costs is "
        f"{', '.join(said)}."
    )


def gate_means(subject: Subject) -> dict[str, np.ndarray]:
    """Mean gates of each class in the last layer of each stage."""
    means = class_means(subject.gates, subject.labels)
    return {layer: means[layer] for layer in subject.gates.ends}
