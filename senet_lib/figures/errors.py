"""The figure of a confusion matrix, whose label describes it in words."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from senet_lib.figures.style import STYLE

DARK = "#222222"  # on pale cells, by day and by night: a page's ink is light at night


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Where the images of each class went.

    Args:
        matrix: (K, K), counts; row: true class, column: predicted class.
        classes: K names.
    """
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(7.0, 2.2 + 0.45 * len(classes))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        if len(classes) <= 20:
            for (row, column), value in np.ndenumerate(share):
                look = {"color": "white" if value > 55 else DARK, "size": 9}
                if value > 0.5:  # no 0
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", **look)
            plain = {"parse_math": False}  # a class may be called $5
            axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", **plain)
            axes.set_yticks(range(len(classes)), classes, **plain)
        axes.grid(visible=False)
        axes.set(xlabel="predicted", ylabel="true")
        figure.colorbar(picture, ax=axes, label="% of the true class", shrink=0.8)
    shown = zip(classes, np.diag(share), matrix.sum(1), strict=True)
    right = ", ".join(f"{name} {value:.0f}" for name, value, images in shown if images)
    figure.set_label(f"Confusion matrix. Percent of each class predicted rightly: {right}.")
    return figure
