"""Figures of one run. Each returns a matplotlib `Figure` whose label describes it in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.families import label
from senet_lib.figures.style import BLUE, INK, MUTED, WIDTH, styled
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
