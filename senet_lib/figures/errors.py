"""Figures of runs. Each returns a matplotlib `Figure` whose label describes it in words.

One language throughout: a plain network is blue, dashed and hollow; the same network with SE is
vermilion, solid and filled; other variants have further colours that colour-blind readers can tell
apart (Okabe and Ito). Nothing here touches pyplot, so nothing is drawn twice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_lib.analysis.families import by_model, family, label
from senet_lib.figures.style import (
    BLUE,
    INK,
    MUTED,
    WIDTH,
    Look,
    _legend_of_each_once,
    _log_if_wide,
    legend_name,
    looks,
    styled,
)
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Which networks belong together


# Figures of a study


@styled
def seed_points(figure: "Figure", runs: Sequence[RunRecord]) -> str:
    """Error of every run: a point a seed, a bar at the mean, one row a network."""
    groups = by_model(runs)
    look = looks(list(groups))
    figure.set_size_inches(WIDTH, 1.0 + 0.42 * len(groups))
    axes = figure.subplots()
    said = []
    for row, (name, group) in enumerate(groups.items()):
        errors = 100 * np.array([run.test_error for run in group])
        mean = 100 * np.mean([run.test_error for run in group])  # rounds as the table does
        style = look[name]
        axes.plot([errors.min(), errors.max()], [row, row], color=style.color, lw=1.5, alpha=0.5)
        axes.plot(
            errors, [row] * len(errors), style.marker, color=style.color, mfc=style.fill, ms=7
        )
        axes.plot([mean] * 2, [row - 0.28, row + 0.28], color=INK, lw=1.5)
        axes.annotate(f"{mean:.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center")
        points = ", ".join(f"{e:.2f}" for e in errors)
        said.append(f"{name}: mean {mean:.2f} (single seeds {points})")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.06)
    axes.set_xlabel(f"{_split(runs)} error (%), one point a seed; bar and number: their mean")
    return f"{_split(runs).capitalize()} error in percent. " + "; ".join(said) + "."


@styled
def learning_curves(figure: "Figure", runs: Sequence[RunRecord], column: str = "test_error") -> str:
    """One quantity over the epochs; thin lines are single seeds, thick ones their mean.

    Args:
        runs: finished runs of one study.
        column: test_error, train_error, test_loss or train_loss.
    """
    groups = by_model(runs)
    names, look = list(groups), looks(list(groups))
    families = list(dict.fromkeys(family(name, names) for name in names))
    columns = min(2, len(families))
    rows = -(-len(families) // columns)
    figure.set_size_inches(WIDTH, 0.5 + 2.5 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scale = 100 if column.endswith("error") else 1
    said, drawn = [], []
    for axes, kin in zip(panels.flat, families, strict=False):
        for name in (n for n in names if family(n, names) == kin):
            curves = [
                scale * run.history.set_index("epoch")[column].dropna() for run in groups[name]
            ]
            mean = sum(curves) / len(curves)
            _draw_curves(axes, curves, mean, look[name], legend_name(name, name, names))
            said.append(f"{name} from {mean.iloc[0]:.3g} to {mean.iloc[-1]:.3g}")
        axes.set_title(kin)
        _legend_of_each_once(axes, fontsize=9)
        drawn += [value for line in axes.lines for value in line.get_ydata()]
    _log_if_wide(panels[0, 0], "y", drawn)  # the panels share it
    for axes in panels.flat[len(families) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel(_words(column, runs))
    for index in range(columns):
        last = [panels[r, index] for r in range(rows) if r * columns + index < len(families)][-1]
        last.set_xlabel("epoch")
        last.tick_params(labelbottom=True)
        last.xaxis.get_major_locator().set_params(integer=True)
    first = f"{_words(column, runs).capitalize()} over the epochs, mean of the seeds: "
    return first + "; ".join(said) + "."


def _draw_curves(
    axes: "Axes", curves: Sequence["pd.Series"], mean: "pd.Series", look: Look, name: str
) -> None:
    if look.color == MUTED:  # one of too many to tell apart: behind the others
        axes.plot(mean.index, mean, look.line, color=MUTED, lw=1, alpha=0.6, label=name, zorder=1)
        return
    for curve in curves if len(curves) > 1 else ():
        axes.plot(curve.index, curve, look.line, color=look.color, lw=0.9, alpha=0.45)
    marks = {"marker": look.marker, "mfc": look.fill, "ms": 5} if len(mean) <= 12 else {}
    axes.plot(mean.index, mean, look.line, color=look.color, lw=2, label=name, **marks)


# Figures of one run


@styled
def run_curves(figure: "Figure", run: RunRecord) -> str:
    """Loss and error of one run over its epochs, on training and on evaluated images."""
    history = run.history.set_index("epoch")
    figure.set_size_inches(WIDTH, 3.1)
    for axes, kind, scale in zip(figure.subplots(1, 2), ("loss", "error"), (1, 100), strict=True):
        few = {"marker": "o", "ms": 4.5} if len(history) <= 12 else {}
        for split, color, line in (("train", MUTED, "--"), ("test", BLUE, "-")):
            name = "training batches" if split == "train" else f"{run.evaluated_on} images"
            curve = scale * history[f"{split}_{kind}"].dropna()
            axes.plot(curve.index, curve, line, color=color, label=name, lw=1.8, **few)
        axes.set_title(kind + (" (nats)" if kind == "loss" else " (%)"))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
    axes.legend()
    return (
        f"Loss and error of {label(run)} over {len(history)} epochs; {run.evaluated_on} error from "
        f"{100 * history['test_error'].dropna().iloc[0]:.1f} to {100 * run.test_error:.1f} percent."
    )


@styled
def confusion(figure: "Figure", matrix: np.ndarray, classes: Sequence[str]) -> str:
    """Where the images of each class went.

    Args:
        matrix: (K, K), counts; row: true class, column: predicted class.
        classes: K names.
    """
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(7.0, 2.2 + 0.45 * len(classes))
    figure.set_size_inches(side + 1, side)
    axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if len(classes) <= 20:
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                color = "white" if value > 55 else INK
                axes.text(
                    column, row, f"{value:.0f}", ha="center", va="center", color=color, size=9
                )
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    axes.grid(visible=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(picture, ax=axes, label="% of the true class", shrink=0.8)
    right = ", ".join(f"{c} {v:.0f}" for c, v in zip(classes, np.diag(share), strict=True))
    return f"Confusion matrix. Percent of each class predicted rightly: {right}."


@styled
def mistakes(figure: "Figure", images: np.ndarray, titles: Sequence[str], columns: int = 4) -> str:
    """Images with a title each.

    Args:
        images: (N, H, W, 3), uint8.
        titles: N texts.
        columns: images in a row.
    """
    rows = max(1, -(-len(images) // columns))
    figure.set_size_inches(WIDTH, 2.3 * rows)
    for axes in (panels := figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
    for axes, image, title in zip(panels, images, titles, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=9, fontweight="normal", loc="center")
    said = "; ".join(title.replace("\n", ", ") for title in titles)
    return f"{len(images)} misclassified images. {said}." if len(images) else "No mistakes."


def _split(runs: Sequence[RunRecord]) -> str:
    return runs[0].evaluated_on if runs else "test"


def _words(column: str, runs: Sequence[Any]) -> str:
    split, _, kind = column.partition("_")
    split = "training" if split == "train" else _split(runs)
    return f"{split} {kind} ({'%' if kind == 'error' else 'nats'})"
