"""The figure of one axis of the ablation, in the language of `style`."""

from typing import TYPE_CHECKING

import numpy as np

from senet_lib.figures.style import BLUE, INK, MUTED, VERMILION, WIDTH, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from senet_lib.analysis.ablation import Ablation


@styled
def axis(figure: "Figure", found: "Ablation") -> str:
    """Error of each value and its difference from no attention; every seed is a point.

    Left: errors, the dashed line being the mean without attention. Right: differences with
    their simultaneous intervals; an arrow stands where the interval leaves the picture.
    """
    names = list(found.frame["label"])
    figure.set_size_inches(WIDTH, 1.25 + 0.42 * len(names))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    said = [_draw_errors(left, found)]
    said.append(_draw_differences(right, found))
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_ylabel(found.axis.key)
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return f"{found.axis.title}. " + " ".join(said)


def _draw_errors(axes: "Axes", found: "Ablation") -> str:
    said = []
    axes.axvline(100 * found.frame["mean_error"].iloc[0], color=BLUE, lw=1, ls="--", alpha=0.7)
    for row, value in enumerate(found.frame.to_dict("records")):
        color, fill = (BLUE, "white") if row == 0 else (VERMILION, VERMILION)
        errors = 100 * np.array(list(value["errors"].values()))
        axes.plot(errors, [row] * len(errors), "o", color=color, mfc=fill, ms=6)
        axes.plot([errors.mean()] * 2, [row - 0.28, row + 0.28], color=INK, lw=1.5)
        said.append(f"{value['label']} {errors.mean():.2f}")
    axes.margins(x=0.08)
    axes.set_xlabel(f"{found.run.evaluated_on} error (%), one point a seed")
    return f"Mean {found.run.evaluated_on} error in percent: {'; '.join(said)}."


def _draw_differences(axes: "Axes", found: "Ablation") -> str:
    axes.axvline(0, color=BLUE, lw=1, ls="--", alpha=0.7)
    compared = found.against_plain.to_dict("records")
    spread = [100 * d for row in compared for d in row["differences"].values()]
    reach = 1.7 * max((abs(d) for d in spread), default=1.0) or 1.0
    values, said = found.frame.set_index("model"), []
    rows = list(found.frame["model"])
    plain = found.frame["num_params"].iloc[0]
    for result in compared:
        row, value = rows.index(result["model"]), values.loc[result["model"]]
        differences = 100 * np.array(list(result["differences"].values()))
        if not np.isnan(result["low"]):
            _draw_interval(axes, row, result["low"], result["high"], reach)
        axes.plot(differences, [row] * len(differences), "o", color=VERMILION, ms=4, alpha=0.7)
        axes.plot([100 * result["difference"]] * 2, [row - 0.28, row + 0.28], color=INK, lw=1.5)
        axes.annotate(
            f"{100 * (value['num_params'] - plain) / plain:+.2f} %", (1.02, row),
            xycoords=("axes fraction", "data"), va="center", fontsize=9, color=MUTED,
        )  # fmt: skip
        said.append(f"{value['label']} {100 * result['difference']:+.2f}")
    axes.annotate(
        "params", (1.02, 0), xycoords=("axes fraction", "data"), va="center", fontsize=9,
        color=MUTED,
    )  # fmt: skip
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("difference from no attention (points)")
    return f"Difference from no attention in percentage points: {'; '.join(said)}."


def _draw_interval(axes: "Axes", row: int, low: float, high: float, reach: float) -> None:
    ends = 100 * low, 100 * high
    inside = [min(max(end, -0.98 * reach), 0.98 * reach) for end in ends]
    axes.plot(inside, [row, row], color=VERMILION, lw=1.5, alpha=0.5)
    for end, shown, marker in zip(ends, inside, "<>", strict=True):
        if end != shown:
            axes.plot([shown], [row], marker, color=VERMILION, ms=5, alpha=0.6)
